//! `--device`: on a stand-in of the driver, whose device executes the kernels' PTX, and where there is no driver.

use crate::run::{Gq, testdata};
use std::process::Output;

const PROMPT: &[&str] = &["--raw", "-p", "Elizabeth was", "-n", "8", "--temp", "0"];

/// The demo model in codes.
fn made(gq: &Gq) {
    gq.ok(&["convert", &testdata("demo"), "-o", "m.gq", "--bits", "4", "-q"]);
}

/// Runs the program with the stand-in as its driver; `None` where that cannot be loaded, which is said.
#[allow(clippy::print_stderr)] // what was not tested
fn with_driver(gq: &Gq, settings: &str, args: &[&str]) -> Option<Output> {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = gq_stand_in::folder(dir.path()) else {
        eprintln!("no library of the stand-in here, so not tested: gq {args:?}");
        return None;
    };
    let mut command = gq.command();
    command.env("LD_LIBRARY_PATH", folder).env("GQ_STAND_IN", settings).args(args);
    let output = command.output().unwrap();
    // Not a card that is in this machine by chance.
    let shown = text(&output.stderr);
    assert!(shown.contains(gq_stand_in::GREETING), "{args:?} did not meet the stand-in: {shown}");
    Some(output)
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn without_a_driver_everything_else_works_and_the_answer_is_clear() {
    let gq = Gq::new();
    let machine = gq.json(&["inspect", "--machine"]);
    let Some(why) = machine["no_gpu"].as_str() else {
        eprintln!("there is a driver here, so not tested: what is said without one");
        return;
    };
    assert!(why.starts_with("no NVIDIA driver is installed") || why.contains("the kernels need"), "{why}");
    assert!(gq.ok(&["inspect", "--machine"]).contains(&format!("gpu        none: {why}\n")));
    made(&gq);
    let asked = |device: &'static str| [&["run", "m.gq", "--device", device], PROMPT].concat();
    let shown = gq.fails(4, &asked("cuda"));
    assert!(shown.contains(&format!("error: {why}\nhint: install ")), "{shown}");
    let output = gq.run(&asked("auto"));
    assert!(output.status.success() && text(&output.stderr).contains(&format!("on the CPU: {why}")));
    assert_eq!(text(&output.stdout), gq.ok(&[&["run", "m.gq"], PROMPT].concat()));
    gq.fails(2, &asked("gpu"));
}

#[test]
fn a_gpu_says_what_the_cpu_says() {
    let gq = Gq::new();
    made(&gq);
    let on = |device: &'static str| [&["run", "m.gq", "--device", device, "--ctx", "64"], PROMPT].concat();
    let Some(output) = with_driver(&gq, "", &on("cuda")) else { return };
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("on GPU 0 (PTX interpreter): ") && said.contains("of 64 tokens"), "{said}");
    assert_eq!(text(&output.stdout), gq.ok(&on("cpu")));
    let auto = with_driver(&gq, "", &on("auto")).unwrap();
    assert_eq!((text(&auto.stdout), text(&auto.stderr).contains("on GPU 0")), (text(&output.stdout), true));

    let machine = with_driver(&gq, "", &["inspect", "--machine"]).unwrap();
    let line = "gpu 0      PTX interpreter, compute capability 8.0, 8.59 GB, 8.59 GB available\n";
    assert!(text(&machine.stdout).contains(line), "{}", text(&machine.stdout));

    let bench =
        ["bench", "m.gq", "--device", "cuda:0", "--pp", "9", "--tg", "2", "--repetitions", "1", "--json"];
    let bench = with_driver(&gq, "", &bench).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert_eq!(
        (&document["gpu"], &document["profile"]),
        (&"PTX interpreter".into(), &serde_json::Value::Null)
    );
}

#[test]
fn an_evaluation_on_a_gpu_says_so_and_measures_the_same() {
    let gq = Gq::new();
    made(&gq);
    let text_path = testdata("demo/eval.txt");
    let args = [
        "eval",
        "m.gq",
        "--reference",
        &testdata("demo"),
        "--text",
        &text_path,
        "--ctx",
        "40",
        "--windows",
        "1",
        "--json",
    ];
    let Some(output) = with_driver(&gq, "", &[&args[..], &["--device", "cuda"]].concat()) else { return };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let on_gpu: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let on_cpu: serde_json::Value = serde_json::from_str(&gq.ok(&args)).unwrap();
    assert_eq!(on_gpu["computed"]["device"], "PTX interpreter");
    assert!(on_cpu["computed"].get("device").is_none());
    // Sums that differ in their last bits round some activations to int8 the other way.
    let kld = |report: &serde_json::Value| report["kld"]["mean"].as_f64().unwrap();
    assert!((kld(&on_gpu) - kld(&on_cpu)).abs() < 1e-2 * kld(&on_cpu), "{} {}", kld(&on_gpu), kld(&on_cpu));
}

#[test]
fn what_fails_on_a_gpu_is_one_clear_error_and_the_file_is_unharmed() {
    let gq = Gq::new();
    made(&gq);
    let before = std::fs::read(gq.path("m.gq")).unwrap();
    let on_gpu = [&["run", "m.gq", "--device", "cuda", "--ctx", "64"], PROMPT].concat();
    let cases = [
        ("version=11080", "the NVIDIA driver is for CUDA 11.8, the kernels need one for CUDA 12.4 or newer"),
        ("devices=0", "there is no GPU number 0: the driver has 0"),
        ("init=999", "the NVIDIA driver cannot be started: CUDA_ERROR_UNKNOWN"),
        ("closed=0", "GPU 0 cannot be opened: CUDA_ERROR_DEVICE_UNAVAILABLE"),
        (
            "capability=75",
            "GPU 0 (PTX interpreter) has compute capability 7.5, the kernels need 8.0 or newer",
        ),
        // The plan does not fit.
        ("memory=30000000", "the GPU has 30.0 MB of 30.0 MB free and the model takes "),
        // The plan fits, and somebody else takes the memory meanwhile: as weights are brought, and when the cache is made.
        ("allocations=0", "the GPU has no room for "),
        ("allocations=3", "the GPU has no room for "),
        // The same for what the driver takes by itself: for kernels, and for a launch.
        ("modules=2", "the GPU has no room for kernels: "),
        ("room=5", "the GPU has no room for a launch: "),
        // The device is lost in the first batch, and in the middle of generation.
        ("launches=3", "the GPU was lost at a launch: CUDA_ERROR_DEVICE_UNAVAILABLE"),
        ("launches=400", "the GPU was lost at "),
    ];
    for (settings, expected) in cases {
        let Some(output) = with_driver(&gq, settings, &on_gpu) else { return };
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{settings}: {shown}");
        let errors: Vec<&str> = shown.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{settings}: {shown}");
        assert!(shown.contains("\nhint: "), "{settings}: {shown}");
    }
    let refused = [&on_gpu[..], &["--activations", "f32"]].concat();
    let output = with_driver(&gq, "", &refused).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("meet int8 activations on a GPU, and f32 was asked for"));
    assert_eq!(std::fs::read(gq.path("m.gq")).unwrap(), before);
}

#[test]
fn a_plan_says_what_a_file_takes_of_a_gpu() {
    let gq = Gq::new();
    let plan = ["plan", &testdata("demo"), "--bits", "4", "--device", "cuda", "--ctx", "64", "--kv", "f32"];
    let Some(shown) = with_driver(&gq, "", &plan) else { return };
    let line = text(&shown.stdout);
    let line = line.lines().find(|line| line.starts_with("gpu ")).unwrap_or_else(|| panic!("{line}"));
    assert!(line.contains("keys and values of 64 tokens") && line.ends_with("it fits"), "{line}");
    let small = text(&with_driver(&gq, "memory=1000000", &plan).unwrap().stdout);
    assert!(small.contains("1.00 MB are there: it does not fit"), "{small}");
    // What was planned is what a run plans.
    let document: serde_json::Value =
        serde_json::from_slice(&with_driver(&gq, "", &[&plan[..], &["--json"]].concat()).unwrap().stdout)
            .unwrap();
    made(&gq);
    let run = [&["run", "m.gq", "--device", "cuda", "--ctx", "64", "--json"], PROMPT].concat();
    let refused = with_driver(&gq, "memory=10000000", &run).unwrap();
    let refused: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    let (planned, taken) = (&document["gpu_memory"]["total_bytes"], &refused["error"]["actual"]);
    let number = |value: &serde_json::Value| value.as_str().map_or(value.as_u64(), |text| text.parse().ok());
    let (planned, taken) = (number(planned).unwrap() as f64, number(taken).unwrap() as f64);
    assert!((planned - taken).abs() < 1e-3 * taken, "{planned} {taken}");
}

/// A GPU that another program has, say, is listed as such and hides no other.
#[test]
fn a_gpu_that_does_not_open_hides_no_other() {
    let gq = Gq::new();
    made(&gq);
    let two = "devices=2,closed=0";
    let Some(machine) = with_driver(&gq, two, &["inspect", "--machine"]) else { return };
    let shown = text(&machine.stdout);
    let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("gpu ")).collect();
    let why = "GPU 0 cannot be opened: CUDA_ERROR_DEVICE_UNAVAILABLE";
    let other = "gpu 1      PTX interpreter, compute capability 8.0, 8.59 GB, 8.59 GB available";
    assert_eq!(lines, [&*format!("gpu 0      {why}"), other]);
    let machine = with_driver(&gq, two, &["inspect", "--machine", "--json"]).unwrap();
    let machine: serde_json::Value = serde_json::from_slice(&machine.stdout).unwrap();
    assert_eq!(machine["gpus"][0], serde_json::json!({ "number": 0, "error": why }));
    assert_eq!((&machine["gpus"][1]["number"], &machine["no_gpu"]), (&1.into(), &serde_json::Value::Null));
    let plan = |device| {
        ["plan", &testdata("demo"), "--bits", "4", "--device", device, "--ctx", "64"].map(String::from)
    };
    let planned = |device| {
        let args = plan(device);
        text(&with_driver(&gq, two, &args.each_ref().map(String::as_str)).unwrap().stdout)
    };
    assert!(planned("auto").contains("it fits\n") && planned("cuda:1").contains("it fits\n"));
    assert!(planned("cuda").contains(why), "{}", planned("cuda"));
    let run = [&["run", "m.gq", "--device", "auto", "--ctx", "64"], PROMPT].concat();
    let output = with_driver(&gq, two, &run).unwrap();
    assert!(output.status.success() && text(&output.stderr).contains("on GPU 1 (PTX interpreter): "));
    let none = with_driver(&gq, "devices=2,closed=0,memory=1000000", &run).unwrap();
    let said = text(&none.stderr);
    assert!(said.contains(&format!("on the CPU: GPU 0: {why}; GPU 1: the GPU has 1000000 bytes ")), "{said}");
}

/// A driver that does not capture launches is told in one note, after the work.
#[test]
fn launches_that_are_not_captured_are_noted_once() {
    let gq = Gq::new();
    made(&gq);
    let run = [&["run", "m.gq", "--device", "cuda", "--ctx", "64"], PROMPT].concat();
    let Some(output) = with_driver(&gq, "capture=1,races=0", &run) else { return };
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(text(&output.stdout), gq.ok(&[&["run", "m.gq", "--ctx", "64"], PROMPT].concat()));
    let notes: Vec<&str> = said.lines().filter(|line| line.contains("launched one by one")).collect();
    assert!(notes.len() == 1 && notes[0].contains("capturing launches"), "{said}");
    let captured = with_driver(&gq, "races=0", &run).unwrap();
    assert!(!text(&captured.stderr).contains("launched one by one"));
}

/// A bench has one cache at a time on the GPU: at its most it takes what a run with room for as many tokens takes.
#[test]
fn a_bench_takes_what_was_planned() {
    let gq = Gq::new();
    made(&gq);
    let bench = ["bench", "m.gq", "--device", "cuda", "--pp", "20", "--tg", "19", "--repetitions", "2"];
    let Some(bench) = with_driver(&gq, "count=1,races=0", &bench) else { return };
    let run = [&["run", "m.gq", "--device", "cuda", "--ctx", "20"], PROMPT].concat();
    let run = with_driver(&gq, "count=1,races=0", &run).unwrap();
    let most = |output: &Output| {
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let line = said.lines().find_map(|line| Some(line.split_once(" bytes in use, ")?.1.to_owned()));
        line.unwrap_or_else(|| panic!("{said}"))
    };
    assert_eq!(most(&bench).split(',').next(), most(&run).split(',').next());
}
