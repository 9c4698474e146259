//! `gq run`: a chat on a terminal, one answer elsewhere, and what decides its tokens.

use crate::run::{Gq, testdata};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const END: &str = "\u{4}";

/// The program on a terminal of its own.
pub fn on_terminal(gq: &Gq, args: &[&str]) -> rexpect::session::PtySession {
    let mut command = gq.command();
    command.args(args).env("TERM", "xterm");
    rexpect::session::spawn_command(command, Some(120_000)).unwrap()
}

/// A checkpoint whose model never ends its turn.
pub fn endless(gq: &Gq) -> String {
    let dir = gq.path("endless");
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["model.safetensors", "tokenizer.json", "chat_template.jinja"] {
        std::fs::copy(Path::new(&testdata("demo")).join(name), dir.join(name)).unwrap();
    }
    let edit = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let text = std::fs::read_to_string(Path::new(&testdata("demo")).join(name)).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        std::fs::write(dir.join(name), value.to_string()).unwrap();
    };
    edit("config.json", &|config| {
        config["eos_token_id"] = 0.into();
        if config["text_config"].is_object() {
            config["text_config"]["eos_token_id"] = 0.into();
        }
    });
    edit("tokenizer_config.json", &|config| {
        config.as_object_mut().unwrap().remove("eos_token");
    });
    dir.to_str().unwrap().to_owned()
}

pub type Terminal = rexpect::session::PtySession;

/// Waits for the prompt: the editor asks the terminal to mark what is pasted.
pub fn ready(chat: &mut Terminal) {
    chat.exp_string("\u{1b}[?2004h").unwrap();
}

/// Sends a message and waits for the prompt after the answer.
fn say(chat: &mut Terminal, text: &str) {
    chat.send_line(text).unwrap();
    ready(chat);
}

#[test]
fn a_chat_remembers_and_reads_only_what_is_new() {
    let gq = Gq::new();
    let mut chat = on_terminal(&gq, &["run", &testdata("demo"), "-n", "8"]);
    chat.exp_string("demo: type a message; /help lists commands").unwrap();
    ready(&mut chat);
    let stats = |chat: &mut Terminal, questions: usize, read: &str| {
        chat.send_line("/stats").unwrap();
        chat.exp_string(&format!("questions  {questions}\r\n")).unwrap();
        chat.exp_regex(read).unwrap();
        ready(chat);
    };
    stats(&mut chat, 0, "keys and values take");
    say(&mut chat, "Who are you?");
    stats(&mut chat, 1, " 0 of them read before");
    say(&mut chat, "And who am I?");
    stats(&mut chat, 2, "tokens, [1-9][0-9]+ of them read before");
    // Two lines are one message, and so is what stands between quotes.
    chat.send_line("one \\").unwrap();
    say(&mut chat, "two");
    stats(&mut chat, 3, "read before");
    chat.send_line("\"\"\"three").unwrap();
    chat.send_line("/reset is no command here").unwrap();
    say(&mut chat, "four\"\"\"");
    stats(&mut chat, 4, "read before");
    chat.send_line("/nonsense").unwrap();
    chat.exp_string("/nonsense is no command").unwrap();
    ready(&mut chat);
    chat.send_line("/stats now").unwrap();
    chat.exp_string("/stats stands alone on its line").unwrap();
    ready(&mut chat);
    chat.send_line("/help").unwrap();
    chat.exp_string("/reset   forget the conversation").unwrap();
    ready(&mut chat);
    chat.send_line("/reset").unwrap();
    chat.exp_string("forgotten").unwrap();
    ready(&mut chat);
    stats(&mut chat, 0, "keys and values take");
    chat.send(END).unwrap();
    chat.flush().unwrap();
    chat.exp_eof().unwrap();
    let ended = chat.process().wait().unwrap();
    assert!(format!("{ended:?}").ends_with(", 0)"), "{ended:?}");
}

#[test]
fn ctrl_c_stops_the_answer_and_a_second_one_leaves() {
    let gq = Gq::new();
    let mut chat = on_terminal(&gq, &["run", &endless(&gq), "--raw", "--temp", "0", "--ctx", "32k"]);
    chat.exp_string("type a text that it goes on with").unwrap();
    ready(&mut chat);
    chat.send_line("It is a truth").unwrap();
    chat.exp_regex("truth[^\n]*\n[^\n]*[a-z]{2}").unwrap(); // it is writing
    chat.send_control('c').unwrap();
    chat.exp_string("stopped; Ctrl-C again leaves").unwrap();
    // Whoever goes on instead is asked once more.
    ready(&mut chat);
    chat.send_line("/stats").unwrap();
    chat.exp_string("ended by Ctrl-C").unwrap();
    ready(&mut chat);
    chat.send_control('c').unwrap();
    chat.exp_string("Ctrl-C again leaves").unwrap();
    ready(&mut chat);
    chat.send_control('c').unwrap();
    chat.exp_eof().unwrap();
    let ended = chat.process().wait().unwrap();
    assert!(format!("{ended:?}").ends_with(", 0)"), "{ended:?}");
}

/// Behind a shell that has the terminal itself meanwhile: setting it would stop the program, and it would never end.
#[test]
fn a_chat_in_the_background_ends_when_it_is_told_to() {
    let gq = Gq::new();
    // Reading stops it (149, SIGTTIN) where the line editor is quicker than the end that it is told of: what is told
    // waits until it goes on. Setting the terminal would stop it again (150, SIGTTOU).
    let script = "set -m; sh -c 'echo $$ > pid; exec \"$@\"' sh \"$@\"; bg; kill -s TERM %1; wait %1; ended=$?; \
                  while [ $ended = 149 ]; do kill -s CONT %1; wait %1; ended=$?; done; echo \"ended with $ended\"";
    let mut command = std::process::Command::new("bash");
    command.current_dir(gq.dir.path()).env("TERM", "xterm").args(["-c", script, "bash"]);
    command.args([env!("CARGO_BIN_EXE_gq"), "run", &testdata("demo"), "-n", "8"]);
    let mut shell = rexpect::session::spawn_command(command, Some(120_000)).unwrap();
    ready(&mut shell);
    let pid = std::fs::read_to_string(gq.path("pid")).unwrap();
    let stop = format!("kill -s STOP {pid}");
    assert!(std::process::Command::new("sh").args(["-c", &stop]).status().unwrap().success());
    let (_, ended) = shell.exp_regex("ended with [0-9]+\r\n").unwrap();
    assert_eq!(ended.trim_end(), "ended with 143");
    shell.exp_eof().unwrap();
}

#[test]
fn a_full_context_forgets_the_oldest_turns() {
    let gq = Gq::new();
    let mut chat = on_terminal(&gq, &["run", &testdata("demo"), "-n", "4", "--ctx", "128"]);
    chat.exp_string("/help lists commands").unwrap();
    ready(&mut chat);
    let mut seen = String::new();
    for _ in 0..8 {
        chat.send_line("Tell me of the ship.").unwrap();
        seen += &chat.exp_string("cut after 4 tokens").unwrap();
        ready(&mut chat);
    }
    assert!(seen.contains("the context of 128 tokens is full: the 2 oldest turns are forgotten"), "{seen}");
    chat.send_line(&"word ".repeat(200)).unwrap();
    chat.exp_string("the context holds 128").unwrap();
    ready(&mut chat);
    // What did not fit was not said, and the chat goes on.
    chat.send_line("Who are you?").unwrap();
    chat.exp_string("cut after 4 tokens").unwrap();
    ready(&mut chat);
    chat.send_line("/quit").unwrap();
    chat.exp_eof().unwrap();
}

/// Runs the program with a text on standard input; gives the exit code, standard output and standard error.
fn fed(gq: &Gq, args: &[&str], text: &str) -> (Option<i32>, String, String) {
    let mut command = gq.command();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_prompt_comes_from_standard_input_too() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let given = gq.ok(&["run", &demo, "-n", "6", "-p", "Who are\nyou?"]);
    let (code, answered, _) = fed(&gq, &["run", &demo, "-n", "6"], "Who are\nyou?\n");
    assert_eq!((code, answered), (Some(0), given));
    for empty in ["", " \n"] {
        let (code, _, told) = fed(&gq, &["run", &demo], empty);
        assert!(
            code == Some(2) && told.contains("there is no prompt") && told.contains("hint: give -p"),
            "{told}"
        );
    }
}

#[test]
fn the_template_is_used_where_there_is_one() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let run = |more: &[&str]| gq.json(&[&["run", &demo, "-p", "Who are you?", "-n", "4"][..], more].concat());
    let (default, chat, raw) = (run(&[]), run(&["--chat"]), run(&["--raw"]));
    assert_eq!(default["prompt_tokens"], chat["prompt_tokens"]);
    let tokens = |run: &serde_json::Value| run["prompt_tokens"].as_array().unwrap().len();
    assert!(tokens(&raw) < tokens(&chat));
    assert!(tokens(&run(&["--system", "Be short."])) > tokens(&chat));
    assert!(gq.fails(2, &["run", &demo, "--raw", "--chat", "-p", "x"]).contains("cannot be used with"));
    // A model without one goes on with the text; who insists is refused.
    std::fs::remove_file(Path::new(&endless(&gq)).join("chat_template.jinja")).unwrap();
    let plain = gq.json(&["run", "endless", "-p", "Who are you?", "-n", "4"]);
    assert_eq!(plain["prompt_tokens"], raw["prompt_tokens"]);
    assert!(gq.fails(3, &["run", "endless", "--chat", "-p", "x"]).contains("no chat template"));
}

#[test]
fn an_answer_ends_where_the_turn_or_the_context_ends() {
    let gq = Gq::new();
    let model = endless(&gq);
    let run = |more: &[&str]| {
        let args = [&["run", &model, "--raw", "--temp", "0", "-p", "It is a truth"][..], more].concat();
        let output = gq.run(&args);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run(&["--ctx", "128"]);
    assert!(told.contains("cut: the context of 128 tokens is full (--ctx)"), "{told}");
    assert!(
        run(&["-n", "3"]).contains("3 generated") && run(&["-n", "3"]).contains("cut: -n allows no more")
    );
    let whole = gq.json(&["run", &model, "--raw", "--temp", "0", "-p", "It is a truth", "--ctx", "128"]);
    let counts = ["tokens", "prompt_tokens"].map(|key| whole[key].as_array().unwrap().len());
    assert!(counts[0] > 64 && counts[0] + counts[1] >= 128, "{counts:?}");
    assert_eq!(whole["stop"], "full context");
    assert!(gq.fails(2, &["run", &model, "--ctx", "16", "-p", &"word ".repeat(40)]).contains("--ctx"));
}

/// `max_length` counts the prompt, `max_new_tokens` comes before it, and -n before both; each is named where it ends an
/// answer.
#[test]
fn the_end_of_an_answer_is_said_by_whoever_set_it() {
    let gq = Gq::new();
    let model = endless(&gq);
    let run = |config: &str, more: &[&str]| {
        std::fs::write(gq.path("endless/generation_config.json"), config).unwrap();
        let args = [&["run", &model, "--raw", "--temp", "0", "-p", "It is a truth"][..], more].concat();
        let told = String::from_utf8(gq.run(&args).stderr).unwrap();
        let counts = gq.json(&args);
        let count = |key: &str| counts[key].as_array().unwrap().len();
        (told, count("tokens"), count("prompt_tokens"))
    };
    let (told, tokens, prompt) = run(r#"{"max_length": 20}"#, &[]);
    assert_eq!(tokens + prompt, 20);
    assert!(told.contains("cut: max_length of generation_config.json is 20"), "{told}");
    let (told, tokens, _) = run(r#"{"max_length": 20, "max_new_tokens": 5}"#, &[]);
    assert!(tokens == 5 && told.contains("cut: max_new_tokens of generation_config.json is 5"), "{told}");
    let (told, tokens, _) = run(r#"{"max_length": 20, "max_new_tokens": 5}"#, &["-n", "7"]);
    assert!(tokens == 7 && told.contains("cut: -n allows no more"), "{told}");
    let write = |config: &str| std::fs::write(gq.path("endless/generation_config.json"), config).unwrap();
    write(r#"{"max_length": 2}"#);
    let told = gq.fails(2, &["run", &model, "--raw", "-p", "It is a truth"]);
    assert!(told.contains("max_length of generation_config.json is 2"), "{told}");
    write(r#"{"do_sample": "no"}"#);
    assert!(gq.fails(3, &["run", &model, "-p", "x"]).contains("do_sample is \"no\", expected true or false"));
    write(r#"{"min_length": 3, "max_time": 5}"#);
    let told = String::from_utf8(gq.run(&["run", &model, "--raw", "-p", "x", "-n", "1"]).stderr).unwrap();
    assert_eq!(told.matches("min_length=3, max_time=5, which gq does not do").count(), 1, "{told}");
}

#[test]
fn generation_config_decides_and_options_override() {
    let gq = Gq::new();
    let demo = testdata("demo"); // do_sample, temperature 0.8, top_p 0.95
    let says = |more: &[&str]| {
        gq.json(&[&["run", &demo, "--raw", "-p", "It is a", "-n", "12"][..], more].concat())["text"].clone()
    };
    assert_eq!(says(&["--seed", "1"]), says(&["--seed", "1"]));
    assert_ne!(says(&["--seed", "1"]), says(&["--seed", "2"]));
    assert_eq!(says(&["--temp", "0", "--seed", "1"]), says(&["--temp", "0", "--seed", "2"]));
    assert_eq!(says(&["--top-k", "1", "--seed", "1"]), says(&["--temp", "0"]));
    for (option, value) in [
        ("--top-p", "5"),
        ("--top-p", "-1"),
        ("--min-p", "1.5"),
        ("--temp", "-1"),
        ("--repetition-penalty", "0"),
        ("--top-p", "NaN"),
    ] {
        let told = gq.fails(2, &["run", &demo, "-p", "x", &format!("{option}={value}")]);
        assert!(told.contains(option) && told.contains("expected"), "{told}");
    }
    // What stands in the file is what counts, also in a .gq file.
    gq.ok(&["convert", &demo, "-o", "m.gq", "--bits", "4"]);
    gq.ok(&["meta", "set", "m.gq", "generation_config.top_p=5", "generation_config.num_beams=4"]);
    let told = gq.fails(3, &["run", "m.gq", "-p", "x", "-n", "1"]);
    assert!(
        told.contains("generation_config.json: top_p is 5") && told.contains("hint: override it"),
        "{told}"
    );
    let output = gq.run(&["run", "m.gq", "-p", "x", "-n", "1", "--top-p", "0.9"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("asks for num_beams=4, which gq does not do"), "{told}");
}

#[test]
fn a_signal_gives_the_terminal_back_as_it_was() {
    let gq = Gq::new();
    // A shell that lives on. What it starts next to itself reads nothing unless it is told to.
    let script = format!(
        "exec 3<&0; echo shell:$$; echo before:$(stty -g); {} run {} <&3 & echo pid:$!; wait $!; echo code:$?; \
         echo after:$(stty -g); echo over",
        env!("CARGO_BIN_EXE_gq"),
        testdata("demo"),
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).current_dir(gq.dir.path()).env("TERM", "xterm");
    let mut shell = rexpect::session::spawn_command(command, Some(120_000)).unwrap();
    let line = |shell: &mut Terminal, name: &str| {
        shell.exp_string(name).unwrap();
        // To the end of the line: what has come so far may be a part of it.
        let line = shell.exp_regex("[0-9a-f:]+\r?\n").unwrap().1;
        line.trim_end().to_owned()
    };
    let parent = line(&mut shell, "shell:");
    let before = line(&mut shell, "before:");
    let pid = line(&mut shell, "pid:");
    ready(&mut shell);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("\nPPid:\t{parent}\n")), "{pid} is not a child of {parent}: {status}");
    let sent =
        std::process::Command::new("sh").args(["-c", &format!("kill -s TERM {pid}")]).status().unwrap();
    assert!(sent.success());
    shell.exp_string("\u{1b}[?2004l").unwrap();
    assert_eq!(line(&mut shell, "code:"), "143");
    assert_eq!(line(&mut shell, "after:"), before);
    shell.exp_string("over").unwrap();
}
