//! What was typed, as a shell would take it again.

/// This command.
pub fn command() -> String {
    shown(typed())
}

/// The conversion that this command is or plans, calibrated on the text that comes with the program.
pub fn calibrated_conversion() -> String {
    shown(calibrated(typed()))
}

fn typed() -> Vec<String> {
    std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// The arguments of a conversion, of those of `gq convert` or `gq plan` of a model that is not calibrated by itself.
fn calibrated(mut args: Vec<String>) -> Vec<String> {
    // What follows `--` are names, whatever they look like.
    let names = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let names = args.split_off(names);
    if let Some(plan) = args.iter_mut().find(|arg| *arg == "plan") {
        "convert".clone_into(plan);
    }
    args.retain(|arg| arg != "--dry-run" && arg != "--tensors");
    args.extend(["--calibration", "builtin"].map(str::to_owned));
    args.extend(names);
    args
}

fn shown(args: Vec<String>) -> String {
    let quoted = |arg: String| match !arg.is_empty()
        && arg.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b))
    {
        true => arg,
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    ["gq".to_owned()].into_iter().chain(args.into_iter().map(quoted)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_keeps_what_was_typed_and_is_calibrated() {
        for (typed, expected) in [
            ("convert big --size 9GB -o my.gq", "gq convert big --size 9GB -o my.gq --calibration builtin"),
            ("convert big --dry-run --bpw 3", "gq convert big --bpw 3 --calibration builtin"),
            ("--threads 2 plan big --tensors", "gq --threads 2 convert big --calibration builtin"),
            ("convert --no-grid -- -big", "gq convert --no-grid --calibration builtin -- -big"),
        ] {
            let args = typed.split(' ').map(str::to_owned).collect();
            assert_eq!(shown(calibrated(args)), expected);
        }
        assert_eq!(shown(vec!["it's".to_owned(), String::new()]), r"gq 'it'\''s' ''");
    }
}
