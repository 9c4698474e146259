//! Configurations of released sizes: the tensors they call for are those the reference builds.

use crate::support::read;
use gq_checkpoint::{Activation, ExpectedTensor, Family, ModelSpec, RopeKind, Scoring, parse_config};

const NAMES: [&str; 11] = [
    "smollm2-135m",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "phi-4-mini",
    "gemma3-270m",
    "gemma4-e2b",
    "gemma4-e4b",
    "gemma4-26b-a4b",
    "gemma4-31b",
    "gemma4-unified",
];

fn spec(name: &str) -> ModelSpec {
    parse_config(&read(&format!("configs/{name}.json"))).unwrap()
}

/// `0-2,5` as 0, 1, 2, 5; `-` is a tensor outside the layers.
fn layers(ranges: &str) -> Vec<Option<usize>> {
    if ranges == "-" {
        return vec![None];
    }
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    };
    ranges.split(',').flat_map(range).map(Some).collect()
}

#[test]
fn expected_tensors_are_those_of_the_reference() {
    for name in NAMES {
        let mut reference = Vec::new();
        for line in read(&format!("configs/{name}.tensors")).lines() {
            let [pattern, shape, ranges] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let shape: Vec<usize> = shape.split('x').map(|dim| dim.parse().unwrap()).collect();
            for layer in layers(ranges) {
                let number = layer.map_or(String::new(), |layer| layer.to_string());
                reference.push((pattern.replace('*', &number), shape.clone()));
            }
        }
        let spec = spec(name);
        // What files have in one tensor stands there by its name.
        let in_files = |tensor: ExpectedTensor| {
            let fused = spec.fused(&tensor.name);
            fused.map_or((tensor.name, tensor.shape), |fused| (fused.hub.clone(), fused.shape()))
        };
        let mut ours: Vec<_> = spec.expected_tensors().into_iter().map(in_files).collect();
        reference.sort();
        ours.sort();
        ours.dedup();
        assert_eq!(ours, reference, "{name}");
    }
}

#[test]
fn smollm2() {
    let spec = spec("smollm2-135m");
    assert_eq!((spec.family, spec.layers.len(), spec.tied_head), (Family::Llama, 30, true));
    assert_eq!((spec.bos, spec.eos.as_slice(), spec.pad), (Some(1), [2].as_slice(), Some(2)));
    let layer = &spec.layers[29];
    assert_eq!((layer.attention.heads, layer.attention.kv_heads, layer.attention.head_dim), (9, 3, 64));
    assert_eq!((layer.attention.scale, layer.attention.window, layer.mlp_width()), (0.125, None, 1536));
    assert_eq!(
        (layer.mlp.unwrap().activation, layer.attention.qk_norm, layer.layer_scalar),
        (Activation::SILU, false, false)
    );
    assert_eq!((spec.ropes.len(), spec.ropes[0].theta, spec.embed_scale), (1, 100_000.0, None));
}

#[test]
fn qwen2_5() {
    let spec = spec("qwen2.5-0.5b");
    assert_eq!((spec.family, spec.layers.len(), spec.tied_head), (Family::Qwen2, 24, true));
    assert_eq!((spec.bos, spec.eos.as_slice(), spec.pad), (Some(151_643), [151_645].as_slice(), None));
    let attention = &spec.layers[23].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (14, 2, 64));
    assert_eq!((attention.window, attention.scale, spec.ropes[0].theta), (None, 0.125, 1e6));
    // Without the keys the reference takes its own, and no tokens; a null says as many heads as queries have.
    let bare = parse_config(r#"{"model_type": "qwen2"}"#).unwrap();
    assert_eq!((bare.hidden_size, bare.layers.len(), bare.vocab_size), (4096, 32, 151_936));
    assert_eq!((bare.bos, bare.eos.as_slice(), bare.tied_head), (None, [].as_slice(), false));
    let heads =
        |key: &str| parse_config(&format!(r#"{{"model_type": "qwen2", "num_attention_heads": 64{key}}}"#));
    assert_eq!(heads("").unwrap().layers[0].attention.kv_heads, 32);
    assert_eq!(heads(r#", "num_key_value_heads": null"#).unwrap().layers[0].attention.kv_heads, 64);
}

#[test]
fn qwen3_has_heads_of_their_own_width_and_norms_on_them() {
    let spec = spec("qwen3-0.6b");
    assert_eq!((spec.family, spec.layers.len(), spec.tied_head), (Family::Qwen3, 28, true));
    assert_eq!((spec.bos, spec.eos.as_slice(), spec.pad), (Some(151_643), [151_645].as_slice(), None));
    let attention = &spec.layers[27].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (16, 8, 128));
    assert_eq!((attention.q_width(), spec.hidden_size, attention.qk_norm), (2048, 1024, true));
    assert_eq!((attention.bias, attention.v_norm, attention.window), (false, false, None));
    assert_eq!((attention.scale, spec.ropes[0].theta), ((1.0 / 128f64.sqrt()) as f32, 1e6));
    // Sizes that are not there are no model's.
    for key in ["head_dim", "hidden_size", "num_key_value_heads", "rope_theta", "max_position_embeddings"] {
        let mut config: serde_json::Value = serde_json::from_str(&read("configs/qwen3-0.6b.json")).unwrap();
        config.as_object_mut().unwrap().remove(key);
        let error = parse_config(&config.to_string()).unwrap_err().to_string();
        assert_eq!(error, format!("field \"{key}\" is missing"));
    }
}

#[test]
fn qwen3_30b_a3b_has_experts_in_place_of_the_mlp() {
    let spec = spec("qwen3-30b-a3b");
    assert_eq!((spec.family, spec.layers.len(), spec.tied_head), (Family::Qwen3Moe, 48, false));
    assert!(spec.layers.iter().all(|layer| layer.mlp.is_none()));
    let moe = spec.layers[47].moe.unwrap();
    assert_eq!((moe.experts, moe.router.top_k, moe.width), (128, 8, 768));
    assert_eq!((moe.router.renormalize, moe.router.scoring), (true, Scoring::Softmax));
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut config = serde_json::from_str(&read("configs/qwen3-30b-a3b.json")).unwrap();
        change(&mut config);
        parse_config(&config.to_string())
    };
    let dense = |spec: &ModelSpec| -> Vec<usize> {
        let layers = spec.layers.iter().enumerate();
        layers.filter(|(_, layer)| layer.mlp.is_some() && layer.moe.is_none()).map(|(at, _)| at).collect()
    };
    // Both keys say which layers have an MLP instead.
    let some = changed(&|c| c["mlp_only_layers"] = vec![0, 47].into()).unwrap();
    assert_eq!((dense(&some), some.layers[0].mlp_width()), (vec![0, 47], 6144));
    let some = changed(&|c| {
        c["decoder_sparse_step"] = 3.into();
        c["mlp_only_layers"] = vec![2].into();
        c["num_hidden_layers"] = 6.into();
    });
    assert_eq!(dense(&some.unwrap()), [0, 1, 2, 3, 4]);
    // Both names of the number of experts; a head's share of the hidden size where its width is not said.
    let renamed = changed(&|c| {
        c["num_local_experts"] = c["num_experts"].take();
        c.as_object_mut().unwrap().remove("num_experts");
    });
    assert_eq!(renamed.unwrap(), spec);
    assert_eq!(changed(&|c| c["num_local_experts"] = 128.into()).unwrap(), spec);
    let without = changed(&|c| drop(c.as_object_mut().unwrap().remove("head_dim"))).unwrap();
    assert_eq!(without.layers[0].attention.head_dim, 64);
    // As Qwen3-Coder has them.
    let coder = changed(&|c| {
        c["use_qk_norm"] = true.into();
        c["qkv_bias"] = false.into();
        c["shared_expert_intermediate_size"] = 0.into();
        c.as_object_mut().unwrap().remove("intermediate_size");
    });
    assert_eq!(coder.unwrap(), spec);
    for (key, value, expected) in [
        (
            "num_local_experts",
            serde_json::json!(64),
            r#"field "num_experts" says 128, field "num_local_experts" says 64"#,
        ),
        ("use_qk_norm", false.into(), r#"field "use_qk_norm" is "false", supported: true"#),
        ("qkv_bias", true.into(), r#"field "qkv_bias" is "true", supported: false"#),
        ("attention_bias", true.into(), r#"field "attention_bias" is "true", supported: false"#),
        (
            "mlp_only_layers",
            vec![48].into(),
            r#"field "mlp_only_layers" is "48", supported: numbers of layers"#,
        ),
        ("num_experts_per_tok", 129.into(), r#"field "num_experts_per_tok" is 129, allowed are 1 to 128"#),
        (
            "shared_expert_intermediate_size",
            768.into(),
            r#"field "shared_expert_intermediate_size" is 768, allowed are 0 to 0"#,
        ),
        ("norm_topk_prob", serde_json::Value::Null, r#"field "norm_topk_prob" is missing"#),
    ] {
        let error = changed(&|c| c[key] = value.clone()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{key}");
    }
}

#[test]
fn gemma3_270m() {
    let spec = spec("gemma3-270m");
    assert_eq!((spec.family, spec.norm_plus_one, spec.embed_scale), (Family::Gemma3, true, Some(25.298_222)));
    let windows: Vec<_> = spec.layers.iter().map(|layer| layer.attention.window).collect();
    let expected: Vec<_> = (0..18).map(|layer| if layer % 6 == 5 { None } else { Some(512) }).collect();
    assert_eq!(windows, expected);
    let theta = |layer: usize| spec.ropes[spec.layers[layer].attention.rope].theta;
    assert_eq!((theta(0), theta(5), spec.layers[0].attention.scale), (1e4, 1e6, 0.0625));
    assert_eq!(spec.layers[0].mlp.unwrap().activation, Activation::GELU_TANH);
}

#[test]
fn gemma4_e2b_shares_caches_and_widens_mlps() {
    let spec = spec("gemma4-e2b");
    assert_eq!(
        (spec.family, spec.final_softcap, spec.eos.as_slice()),
        (Family::Gemma4, Some(30.0), &[1, 106][..])
    );
    let layer = |index: usize| &spec.layers[index];
    assert_eq!(layer(14).attention.kv_shared_with, None);
    // Sliding layers read the last own sliding layer, full ones the last own full layer.
    assert_eq!(layer(15).attention.kv_shared_with, Some(14));
    assert_eq!(layer(17).attention.kv_shared_with, Some(11));
    assert_eq!(layer(34).attention.kv_shared_with, Some(11));
    assert_eq!((layer(14).mlp_width(), layer(15).mlp_width()), (6144, 12288));
    assert_eq!((layer(0).attention.head_dim, layer(5).attention.head_dim), (256, 512));
    assert_eq!((layer(0).attention.window, layer(5).attention.window), (Some(512), None));
    assert!(layer(0).attention.v_norm && !layer(5).attention.k_eq_v && layer(0).layer_scalar);
    let ple = spec.per_layer_embedding.unwrap();
    assert_eq!((ple.width, ple.vocab_size, ple.table_scale), (256, 262_144, 16.0));
    assert_eq!((ple.projection_scale, ple.sum_scale), (1536f64.powf(-0.5) as f32, 0.5f32.sqrt()));
    let full = &spec.ropes[layer(5).attention.rope];
    assert_eq!(full.kind, RopeKind::Proportional { rotary_fraction: 0.25, factor: 1.0 });
    assert_eq!(full.inv_freq.iter().filter(|freq| **freq != 0.0).count(), 64);
    assert_eq!(full.inv_freq.len(), 256);
}

#[test]
fn gemma4_e4b_keeps_the_mlp_width() {
    let spec = spec("gemma4-e4b");
    assert_eq!(
        (spec.layers[23].attention.kv_shared_with, spec.layers[24].attention.kv_shared_with),
        (None, Some(22))
    );
    assert_eq!(spec.layers[29].attention.kv_shared_with, Some(23));
    assert!(spec.layers.iter().all(|layer| layer.mlp_width() == 10240));
}

#[test]
fn gemma4_26b_a4b_has_experts_and_k_as_v() {
    let spec = spec("gemma4-26b-a4b");
    let moe = spec.layers[0].moe.unwrap();
    assert_eq!((moe.experts, moe.router.top_k, moe.width), (128, 8, 704));
    let kv = |layer: usize| (spec.layers[layer].attention.kv_heads, spec.layers[layer].attention.k_eq_v);
    assert_eq!((kv(0), kv(5)), ((8, false), (2, true)));
    assert_eq!((spec.per_layer_embedding, spec.layers[0].attention.window), (None, Some(1024)));
}

#[test]
fn both_spellings_of_gemma4_give_one_specification() {
    let first = read("configs/gemma4-31b.json");
    let mut value: serde_json::Value = serde_json::from_str(&first).unwrap();
    let map = value.as_object_mut().unwrap();
    map.remove("global_head_dim");
    map.remove("num_global_key_value_heads");
    let full = (0..60).filter(|layer| layer % 6 == 5);
    let entry = serde_json::json!({"head_dim": 512, "num_key_value_heads": 4});
    let config = full.map(|layer| (format!("{layer:02}"), entry.clone())).collect();
    map.insert("per_layer_config".to_owned(), serde_json::Value::Object(config));
    assert_eq!(parse_config(&value.to_string()).unwrap(), parse_config(&first).unwrap());
}

/// Files as they are on the Hub, with everything that tools leave in them.
#[test]
fn keys_of_released_files_are_known() {
    let smollm2 = r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,
        "bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":576,"initializer_range":0.041666666666666664,
        "intermediate_size":1536,"is_llama_config":true,"max_position_embeddings":8192,"mlp_bias":false,
        "model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,"pad_token_id":2,
        "pretraining_tp":1,"rms_norm_eps":1e-05,"rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,
        "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.42.3",
        "transformers.js_config":{"kv_cache_dtype":{"q4f16":"float16"}},"use_cache":true,"vocab_size":49152}"#;
    assert_eq!(parse_config(smollm2).unwrap(), spec("smollm2-135m"));

    let gemma3_4b = r#"{"architectures":["Gemma3ForConditionalGeneration"],"boi_token_index":255999,
        "eoi_token_index":256000,"eos_token_id":[1,106],"image_token_index":262144,"initializer_range":0.02,
        "mm_tokens_per_image":256,"model_type":"gemma3","text_config":{"hidden_size":2560,"intermediate_size":10240,
        "model_type":"gemma3_text","num_hidden_layers":34,"rope_scaling":{"factor":8.0,"rope_type":"linear"},
        "sliding_window":1024},"torch_dtype":"bfloat16","transformers_version":"4.50.0.dev0","vision_config":
        {"hidden_size":1152,"image_size":896,"intermediate_size":4304,"model_type":"siglip_vision_model",
        "num_attention_heads":16,"num_hidden_layers":27,"patch_size":14,"vision_use_head":false}}"#;
    let spec = parse_config(gemma3_4b).unwrap();
    assert_eq!((spec.vocab_size, spec.layers.len(), spec.eos.as_slice()), (262_208, 34, &[1, 106][..]));
    let attention = &spec.layers[5].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (8, 4, 256));
    assert_eq!(spec.ropes[attention.rope].kind, RopeKind::Linear { factor: 8.0 });
    assert_eq!(spec.ropes[spec.layers[0].attention.rope].kind, RopeKind::Default);

    let gemma3_1b = r#"{"architectures":["Gemma3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,
        "attn_logit_softcapping":null,"bos_token_id":2,"cache_implementation":"hybrid","eos_token_id":[1,106],
        "final_logit_softcapping":null,"head_dim":256,"hidden_activation":"gelu_pytorch_tanh","hidden_size":1152,
        "initializer_range":0.02,"intermediate_size":6912,"max_position_embeddings":32768,"model_type":"gemma3_text",
        "num_attention_heads":4,"num_hidden_layers":26,"num_key_value_heads":1,"pad_token_id":0,
        "query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_local_base_freq":10000,"rope_scaling":null,
        "rope_theta":1000000,"sliding_window":512,"sliding_window_pattern":6,"torch_dtype":"bfloat16",
        "transformers_version":"4.50.0.dev0","use_cache":true,"vocab_size":262144}"#;
    assert_eq!(parse_config(gemma3_1b).unwrap().layers[25].attention.window, Some(512));

    let llama = r#"{"_name_or_path":"x","architectures":["LlamaForCausalLM"],"attention_bias":false,
        "attention_dropout":0.0,"bos_token_id":128000,"eos_token_id":[128001,128008,128009],"head_dim":64,
        "hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,"intermediate_size":8192,
        "max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama","num_attention_heads":32,
        "num_hidden_layers":16,"num_key_value_heads":8,"pad_token_id":-1,"pretraining_tp":1,"rms_norm_eps":1e-05,
        "rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,
        "original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,
        "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.45.0.dev0",
        "unsloth_fixed":true,"use_cache":true,"vocab_size":128256}"#;
    let spec = parse_config(llama).unwrap();
    assert_eq!((spec.pad, spec.eos.len()), (None, 3));
}

/// What a changed configuration is refused with.
#[test]
fn refusals_name_the_field_the_value_and_what_is_supported() {
    let cases: &[(&str, &str, serde_json::Value, &str)] = &[
        (
            "smollm2-135m",
            "hidden_act",
            "relu".into(),
            r#"field "hidden_act" is "relu", supported: silu, gelu_pytorch_tanh"#,
        ),
        (
            "smollm2-135m",
            "rope_interleaved",
            true.into(),
            r#"field "rope_interleaved" is "true", supported: false"#,
        ),
        ("smollm2-135m", "alibi", true.into(), r#"unknown key "alibi" for model type "llama""#),
        (
            "smollm2-135m",
            "rope_scaling",
            serde_json::json!({"rope_type": "ntk", "factor": 2.0}),
            r#"field "rope_scaling.rope_type" is "ntk", supported: default, linear, dynamic, llama3, yarn, longrope, proportional"#,
        ),
        (
            "smollm2-135m",
            "rope_scaling",
            serde_json::json!({"rope_type": "linear", "factor": 2.0, "ramp": 1}),
            r#"unknown key "rope_scaling.ramp" for model type "llama""#,
        ),
        (
            "smollm2-135m",
            "rope_parameters",
            serde_json::json!({"rope_type": "default", "rope_theta": 5.0}),
            r#"field "rope_theta" says 100000, field "rope_parameters.rope_theta" says 5"#,
        ),
        (
            "smollm2-135m",
            "quantization_config",
            serde_json::json!({"quant_method": "hqq", "bits": 4}),
            r#"field "quantization_config.quant_method" is "hqq", supported: fp8, compressed-tensors, gptq, awq"#,
        ),
        (
            "smollm2-135m",
            "num_hidden_layers",
            1e15.into(),
            r#"field "num_hidden_layers" is 1000000000000000.0, allowed are 1 to 1024"#,
        ),
        (
            "smollm2-135m",
            "num_hidden_layers",
            "30".into(),
            r#"field "num_hidden_layers" is "30", expected a whole number"#,
        ),
        (
            "smollm2-135m",
            "num_key_value_heads",
            2.into(),
            "layer 0: 9 query heads are not a multiple of 2 key-value heads",
        ),
        (
            "qwen2.5-0.5b",
            "use_sliding_window",
            true.into(),
            r#"field "use_sliding_window" is "true", supported: false"#,
        ),
        (
            "qwen2.5-0.5b",
            "layer_types",
            vec!["sliding_attention"; 24].into(),
            r#"field "layer_types" is "sliding_attention", supported: full_attention"#,
        ),
        (
            "qwen2.5-0.5b",
            "num_attention_heads",
            13.into(),
            r#"field "num_attention_heads" is "13", supported: divisors of hidden_size without head_dim"#,
        ),
        (
            "qwen2.5-0.5b",
            "attention_bias",
            true.into(),
            r#"unknown key "attention_bias" for model type "qwen2""#,
        ),
        (
            "gemma3-270m",
            "use_bidirectional_attention",
            true.into(),
            r#"field "use_bidirectional_attention" is "true", supported: false"#,
        ),
        (
            "gemma3-270m",
            "sliding_window",
            0.into(),
            r#"field "sliding_window" is 0, allowed are 1 to 4294967296"#,
        ),
        (
            "gemma3-270m",
            "attn_logit_softcapping",
            50.0.into(),
            r#"field "attn_logit_softcapping" is "50.0", supported: null: the reference has the key, but does not apply it"#,
        ),
        (
            "smollm2-135m",
            "rms_norm_eps",
            serde_json::Value::Null,
            r#"field "rms_norm_eps" is null, which has no meaning there; without the key it is 1e-6; Ministral 3, Phi, GPT-OSS: 1e-5"#,
        ),
        (
            "smollm2-135m",
            "rope_scaling",
            serde_json::json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            r#"field "rope_parameters.short_factor" has 1 factors for 32 pairs"#,
        ),
        (
            "gemma4-31b",
            "use_bidirectional_attention",
            "all".into(),
            r#"field "use_bidirectional_attention" is "all", supported: null, vision"#,
        ),
        (
            "gemma4-31b",
            "per_layer_config",
            serde_json::json!({"5": {"head_dim": 128, "num_key_value_heads": 4}}),
            r#"field "global_head_dim" says 512, field "per_layer_config.5.head_dim" says 128"#,
        ),
        (
            "gemma4-e4b",
            "per_layer_config",
            serde_json::json!({"5": {"head_dim": 512}, "05": {"head_dim": 512}}),
            r#"field "per_layer_config.05" says an entry, field "per_layer_config.5" says another entry"#,
        ),
        (
            "gemma4-e4b",
            "per_layer_config",
            serde_json::json!({"5": {"hidden_size": 512}}),
            r#"unknown key "per_layer_config.5.hidden_size" for model type "gemma4_text""#,
        ),
        (
            "gemma4-e4b",
            "num_kv_shared_layers",
            41.into(),
            r#"layer 5 shares keys and values, but no earlier "full_attention" layer makes them"#,
        ),
        (
            "gemma4-e4b",
            "layer_types",
            serde_json::json!(["full_attention"]),
            r#"field "layer_types" has 1 entries for 42 layers"#,
        ),
        ("gemma4-e4b", "enable_moe_block", true.into(), r#"field "num_experts" is missing"#),
        (
            "gemma4-e4b",
            "model_type",
            "gemma9".into(),
            r#"field "model_type" is "gemma9", supported: llama, mistral, qwen2, qwen3, qwen3_moe, ministral3, mistral3, phi3, gpt_oss, gemma3_text, gemma3, gemma4_text, gemma4, gemma4_unified_text, gemma4_unified"#,
        ),
    ];
    for (name, key, value, expected) in cases {
        let mut config: serde_json::Value =
            serde_json::from_str(&read(&format!("configs/{name}.json"))).unwrap();
        config[key] = value.clone();
        let error = parse_config(&config.to_string()).unwrap_err();
        assert_eq!(error.to_string(), *expected, "{name}: {key}");
    }
}
