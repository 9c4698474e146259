//! What to try next, by failure code. The only place with advice in it.

/// The hint for a failure code, if there is something useful to say.
pub fn hint(code: &str) -> Option<&'static str> {
    let hint = match code {
        "usage" => "`gq help` lists the commands, `gq help COMMAND` its options",
        "source.unknown" => "give a checkpoint directory (config.json and *.safetensors) or a .gq file",
        "path.missing" => "check the path; relative paths start at the current directory",
        "convert.differs" => "use the same options to continue it, or --restart to discard it",
        "convert.source_changed" => "--restart discards what was done and begins again",
        "convert.busy" => "wait for the other process, or choose another output",
        "config.unknown_key" => "the key may change what the model computes, so it is not passed over",
        "tokenizer.missing" => {
            "convert a checkpoint that has tokenizer.json, or evaluate against reference outputs"
        }
        "plan.memory" => "raise --max-memory, or use fewer --threads",
        "override.unmatched" => "`gq inspect SRC --tensors` lists the names",
        "verify.damaged" => "fetch or convert the file again",
        "internal" => "this is a defect of gq: please report the command and this message",
        _ => return None,
    };
    Some(hint)
}
