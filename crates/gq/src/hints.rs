//! What to try next, by failure code. The only place with advice in it.

/// The hint for a failure code, if there is something useful to say.
pub fn hint(code: &str) -> Option<&'static str> {
    let hint = match code {
        "usage" => "`gq help` lists the commands, `gq help COMMAND` its options",
        "source.unknown" => "give a checkpoint directory (config.json and *.safetensors) or a .gq file",
        "path.missing" => "check the path; relative paths start at the current directory",
        "internal" => "this is a defect of gq: please report the command and this message",
        _ => return None,
    };
    Some(hint)
}
