//! What to try next, by failure code. The only place with advice in it.

/// The hint for a failure code, if there is something useful to say.
pub fn hint(code: &str) -> Option<&'static str> {
    let hint = match code {
        "usage" => "`gq help` lists the commands, `gq help COMMAND` its options",
        "source.unknown" => {
            "give a checkpoint directory (config.json and *.safetensors), a GGUF or hf://ORG/NAME"
        }
        "source.converted" => {
            "it is converted already: `gq run`, `gq eval` and `gq export` take it; another size is made from the original checkpoint"
        }
        "container.magic" => {
            "give a .gq file, a checkpoint directory (config.json and *.safetensors), a GGUF or hf://ORG/NAME"
        }
        "verify.other_source" => {
            "`gq inspect FILE --json` lists the files and digests it was made from, and the repository and commit where they are known; adapters are given with --lora"
        }
        "verify.nothing_rederived" => {
            "its tensors were rounded by measurements: give them with --measurements DIR (made by `gq calibrate`, or left by `gq convert --keep-measurements`)"
        }
        "verify.other_measurements" => "give those that the file was made by, or leave --measurements out",
        "doctor.memory" => {
            "close other programs, take fewer tokens (--ctx) or --kv q8, or make a smaller file: gq convert SRC --fit 8GiB"
        }
        "container.format" => "it is damaged or was cut: fetch or copy it again, or convert again",
        "checkpoint.no_config" => {
            "give the folder that has config.json and *.safetensors, a GGUF, a .gq file or hf://ORG/NAME"
        }
        "generation_config" => {
            "override it (--temp, --top-k, --top-p, --min-p, --repetition-penalty), or change it: gq meta set FILE.gq generation_config.KEY=VALUE"
        }
        "device.no_driver" => "install NVIDIA's driver, or run on the CPU: --device cpu",
        "device.not_started" => {
            "`nvidia-smi` says whether the driver works; after an update of it the machine has to be started again; --device cpu runs on the CPU"
        }
        "device.closed" => {
            "another program may have it or its memory (`nvidia-smi` lists them); take another GPU (`gq inspect --machine` lists them), or --device cpu"
        }
        "device.old_driver" => "install a newer driver of NVIDIA's, or run on the CPU: --device cpu",
        "device.none" => "`gq inspect --machine` lists the GPUs; --device cpu runs on the CPU",
        "device.old" => "run on another GPU, or on the CPU: --device cpu",
        "device.memory" => {
            "make room on the GPU, or take less: a smaller --ctx, --kv f16 or q8, a file of fewer bits; --device cpu runs on the CPU"
        }
        "device.lost" => {
            "no file was changed; run it again, on the CPU (--device cpu) if it happens again; the system's log says more"
        }
        "device.failed" => "no file was changed; --device cpu runs on the CPU",
        "device.activations" => "leave --activations out, or run on the CPU: --device cpu",
        "device.deterministic" => "leave --deterministic out, or run on the CPU: --device cpu",
        "run.context" => "allow a larger context with --ctx, or say less",
        "run.no_prompt" => "give -p TEXT, text on standard input, or run it on a terminal to chat",
        "serve.address" => {
            "another program may have the port: choose one with --port, or 0 for any that is free"
        }
        "serve.key" => "write a key such as `openssl rand -hex 32` prints",
        "serve.memory" => "take fewer answers at once (--parallel), a smaller --ctx, or --kv f16 or q8",
        "serve.parallel" => "leave --parallel out, or run on the CPU: --device cpu",
        "source.quantized" => {
            "begin with the original checkpoint if you can; --allow-requantize goes on with this one"
        }
        "source.mxfp4" => {
            "ask for 4.25 bits or more (--bpw), for --encoding grid, or for that of these tensors alone (--override PATTERN=grid), which loses nothing; --allow-requantize rounds them"
        }
        "gguf.type" => {
            "make the file again with a type that is listed, or begin with the original checkpoint"
        }
        "gguf.key" => "the key may change what the model computes, so it is not passed over",
        "gguf.unknown_key" => {
            "the key may change what the model computes, so it is not passed over; --ignore-key NAME accepts one that does not"
        }
        "gguf.pre" => {
            "--assume-pre llama-bpe reads it as Llama 3's, qwen2 or gpt-2 as theirs, default as llama.cpp does"
        }
        "gguf.turn_tokens" => {
            "--turn-tokens single reads them as the model was trained, --turn-tokens text as llama.cpp does"
        }
        "export.templates" => {
            "give one of them a name of other letters and digits, or take it out of tokenizer_config.json or additional_chat_templates"
        }
        "export.tokens" => {
            "--allow-other-tokens writes it all the same; export with --safetensors keeps the tokenizer"
        }
        "export.nfc" => {
            "--drop-nfc leaves it out, as llama.cpp's own converter does; export with --safetensors keeps it"
        }
        "source.special" => "write what comes out of it to a file first",
        "outside.panic" => "the file is not what that library can read: make or fetch it again",
        "tokenizer.ids" => {
            "write the tokens of the missing ids too, such as <unused7>, in their places, and every token and id once"
        }
        "tokenizer.rows" => {
            "resize the embedding to the tokenizer, or take the tokenizer that belongs to the weights"
        }
        "tokenizer.not_as_written" => "the setting may change tokens, so it is not passed over",
        "file.cut" | "file.changed" => {
            "run it again on a whole file, and leave files alone while gq reads them"
        }
        "file.unreadable" => "the disk or the network file system failed; the system's log says more",
        "convert.scale" => "keep this tensor as it is: --override 'NAME=exact'",
        "seen.broken" => {
            "the source may be broken in the same way, which gq eval SRC --reference SRC --text FILE shows; --no-check keeps such a file, and what was done is kept for that"
        }
        "text.broken" => "put the whole file in its place; --no-check goes on without looking at texts",
        "verify.text" => "convert again from a source whose texts are whole, or set them with `gq meta set`",
        "verify.not_finite" => "convert again; the file computes nothing that can be used",
        "output.exists" => "choose another output, or --force to replace what is there",
        "output.taken" => "look at both files, and give the finished one the name that it should have",
        "output.is_link" => "give the file that the link leads to, or another output",
        "output.unchecked_exists" => "remove it, or choose another output",
        "output.folder_exists" => "choose another output, or remove the folder that is there",
        "output.is_source" => {
            "choose another output: this one is needed to make it; commands that change a FILE do it in place without -o"
        }
        "output.in_source" => "choose another folder, or a name that ends in .gq, .gguf or .html",
        "output.is_folder" => "name a file in it",
        "output.special" => "name a file; what is there stays as it is",
        "output.foreign" => "gq did not make it: look at it and remove it, or choose another output",
        "output.missing_folder" => "make the folder first, or choose another output",
        "output.not_empty" => "choose a new folder, or one with measurements",
        "output.no_space" => "free space, or write to another disk",
        "meta.absent" => "`gq meta get FILE` lists the texts that are in it",
        "meta.cached" => "give -o OUT: files of the Hub's cache are shared and stay as they are",
        "meta.unknown_text" => "it was written by a newer gq: edit it with that",
        "meta.invalid" => "`gq meta get FILE NAME` shows the text that is there; nothing was changed",
        "chat_template.limit" => {
            "`gq meta set FILE.gq chat_template=@template.jinja` gives the model another template"
        }
        "chat.conversation" => {
            "write [{\"role\": \"user\", \"content\": \"Hello\"}], or an object with it as \"messages\""
        }
        "model.not_finite" => {
            "weights overflow f32 or are broken: compare their checksums with where they came from"
        }
        "improve.source" => {
            "give --reference what the file was made from, and --lora as the conversion had it"
        }
        "improve.nothing" => {
            "`gq improve --scales` tunes scales and norms alone; exact and grid weights have nothing to round"
        }
        "path.missing" => "check the path; relative paths start at the current directory",
        "convert.differs" => "use the same options to continue it, or --restart to discard it",
        "convert.source_changed" => "--restart discards what was done and begins again",
        "convert.busy" | "output.busy" => "wait for the other process, or choose another output",
        "config.unknown_key" => {
            "the key may change what the model computes, so it is not passed over; --ignore-key NAME accepts one that does not"
        }
        "tokenizer.tekken" => {
            "write tokenizer.json next to it: python -c \"from transformers.integrations.mistral import convert_tekken_tokenizer as c; c('DIR/tekken.json').save_pretrained('DIR')\""
        }
        "tokenizer.missing" => {
            "convert a checkpoint that has tokenizer.json, or evaluate against reference outputs"
        }
        "plan.not_measured" => {
            "`gq convert` with --calibration builtin measures first; or give --measurements DIR with what `gq calibrate` wrote"
        }
        "plan.measures_nothing" => {
            "`gq convert` measures and keeps to it; to plan, `gq calibrate SRC -o DIR` first, then --measurements DIR here"
        }
        "calibration.option" => "leave it out, or add --calibration builtin",
        "plan.budget" => "allow more bytes, or fewer bits for tables: --embedding, --head, --per-layer-table",
        "measurements.other" => {
            "measure again with `gq calibrate`, into another directory if the old one is still of use"
        }
        "calibration.too_short" => "give more text, or take shorter sequences: --calibration-ctx",
        "calibrate.memory" => {
            "raise --max-memory, use fewer --threads, a smaller --calibration-ctx or, with experts, --expert-moments layer"
        }
        "plan.memory" => "raise --max-memory, or use fewer --threads",
        "plan.off_grid" => "name an encoding for it: --encoding, --embedding, or --override 'NAME=tq8'",
        "convert.off_grid" => "plan and convert again, when the source has stopped changing",
        "override.unmatched" => "`gq inspect SRC --tensors` lists the names",
        "verify.damaged" => "fetch or convert the file again",
        "hub.bad_name" => "repositories are called ORG/NAME, such as HuggingFaceTB/SmolLM2-135M",
        "hub.offline" | "hub.incomplete" => {
            "unset HF_HUB_OFFLINE and `gq pull` it, or check HF_HOME if it is in another cache"
        }
        "hub.repository_missing" => "check the name on the Hub, and that the token may see the repository",
        "hub.repository_missing_or_private" => {
            "check the name on the Hub; for a private repository set HF_TOKEN or run `hf auth login`"
        }
        "hub.revision_missing" => "the repository's page on the Hub lists its branches and tags",
        "hub.nothing_selected" => "`gq pull REPO --all --dry-run` lists the files",
        "hub.gated_no_token" => {
            "accept the conditions on the repository's page, then set HF_TOKEN or run `hf auth login`"
        }
        "hub.gated" => "accept the conditions on the repository's page with the account of this token",
        "hub.token_refused" => "make a token in the Hub's settings and set HF_TOKEN or run `hf auth login`",
        "hub.forbidden" => "the token needs write access to the repository",
        "hub.forbidden_read" => {
            "the repository may be gated (accept its conditions on its page), or the token may not read it: a fine-grained token lists its repositories"
        }
        "hub.forbidden_read_no_token" => {
            "the repository may be gated or private: accept its conditions on its page, then set HF_TOKEN or run `hf auth login`"
        }
        "hub.forbidden_storage" => {
            "the Hub allowed it and its storage did not: look for a proxy or firewall in between, and a wrong clock"
        }
        "hub.too_slow" => "what was fetched is kept: run the same command again on a better connection",
        "hub.planted_link" => "remove the link, or move the cache with HF_HOME",
        "hub.no_connection" => "check the network and HF_ENDPOINT; what was fetched is kept",
        "hub.rate_limited" | "hub.status" | "hub.cut_short" => {
            "run the same command again later; what was fetched is kept"
        }
        "hub.locked" => "another process is fetching the same file: wait for it",
        "hub.hash_mismatch" => "run the same command again; if it stays, the mirror serves other bytes",
        "disk.full" => "free space, or move the cache with HF_HOME",
        "source.lfs_pointer" => {
            "run `git lfs pull` in the clone, or fetch the file itself: `gq pull ORG/NAME` does for repositories of the Hub"
        }
        "source.annex_pointer" => "run `git annex get` on the file",
        "source.web_page" => {
            "fetch the file itself; a page like this comes where a login or another address is needed"
        }
        "source.empty" => "fetch or copy the file again",
        "source.changed" => {
            "nothing was written; run the command again when nothing writes to the source any more, or copy it first"
        }
        "checkpoint.unfinished" => "finish the download, or remove what it left if the other files are whole",
        "checkpoint.shard_missing" => "fetch the missing shard",
        "checkpoint.stray_weights" => {
            "the index is stale, or two sets of weights are there: take away the index where the files are whole by themselves, or the files that are not meant"
        }
        "checkpoint.second_weights" => "move away the files that are not meant",
        "checkpoint.pickle" => {
            "convert it where you trust it: transformers' `AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)` writes safetensors"
        }
        "checkpoint.is_adapter" => {
            "give the checkpoint that it was trained on, and the adapter with --lora: `gq convert BASE --lora ADAPTER`"
        }
        "config.quantization" => {
            "what a quantizer stored in this form is not read: give the checkpoint that it was made from, or load it where its program runs, decode it and save it in 16 bits; where the weights are plain 16 or 32 bits and only the entry is left over, take quantization_config out of config.json"
        }
        "tensor.quantized" => {
            "by its name a quantizer stored it, and of those gq reads float8 weights with one scale tensor each, and integers as compressed-tensors, GPTQ and AWQ (gemm) pack them, where quantization_config says which: give the checkpoint that it was made from, or load it where its program runs, decode it and save it in 16 bits"
        }
        "tensor.one_expert" => {
            "the experts of a layer are read from one tensor for each projection, as the model's maker publishes them, not from one tensor an expert: give that checkpoint"
        }
        "tensor.unmerged" => {
            "merge it with PEFT (`merge_and_unload`), save the model again, and convert that"
        }
        "adapter.pickle" => {
            "convert it where you trust it: python -c \"import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load('adapter_model.bin', map_location='cpu', weights_only=True).items()}, 'adapter_model.safetensors')\""
        }
        "adapter.empty" => {
            "gather the parameters before save_pretrained (FSDP: summon_full_params, ZeRO-3: GatheredParameters)"
        }
        "adapter.untargeted" => {
            "file and adapter_config.json are not of one adapter: give the configuration that it was trained with"
        }
        "adapter.no_bias" => {
            "PEFT cannot merge it either: train with lora_bias false, or take a base with biases"
        }
        "adapter.half_resized" => {
            "save the adapter with save_embedding_layers=True, or both tables in modules_to_save"
        }
        "adapter.ambiguous" => {
            "put the version of PEFT that wrote it into adapter_config.json as peft_version"
        }
        "adapter.texts_disagree" => {
            "choose with --tokenizer-from base, or --tokenizer-from DIR with one of the folders"
        }
        "adapter.token_beyond" => {
            "tokens were added without saving their rows: train with them in modules_to_save or trainable_token_indices, or give --tokenizer-from base"
        }
        "adapter.added_token" => "save tokenizer.json again with those tokens, or give --tokenizer-from base",
        "adapter.option" => "merge it with PEFT (`merge_and_unload`) and convert the result",
        "adapter.tensor_missing" | "adapter.shape" => {
            "the adapter was trained on another model, or with other modules than this checkpoint has: give the checkpoint that its base_model_name_or_path names"
        }
        "adapter.no_file" => "give the folder with adapter_config.json and adapter_model.safetensors",
        "adapter.untied" => {
            "merge it with PEFT, which unties the two in the configuration, and convert the result"
        }
        "recipe" | "recipe.toml" => "docs/RELEASE.md lists the keys of a recipe",
        "release.not_empty" => "choose another folder; what no release made is not discarded",
        "release.differs" => "choose another folder, or --restart to discard what is there",
        "verify.no_release" => {
            "give a .gq file or the folder that `gq release` made; `gq pull` a release first"
        }
        "verify.missing" | "verify.unlisted" | "verify.manifest" | "verify.sums" => {
            "make or fetch the release again; a release is checked whole"
        }
        "internal" => "this is a defect of gq: please report the command and this message",
        _ => return None,
    };
    Some(hint)
}
