//! `gq convert --format compressed-tensors`: a budget spent over integer codes in groups, for vLLM and transformers.

use crate::run::{Gq, testdata};
use serde_json::Value;

/// Mean divergence from the demo model.
fn divergence(gq: &Gq, model: &str) -> f64 {
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let how =
        ["--text", &text, "--ctx", "128", "--windows", "4", "--cache-limit", "0", "--activations", "f32"];
    gq.json(&[&["eval", model, "--reference", &demo][..], &how].concat())["kld"]["mean"].as_f64().unwrap()
}

fn read(gq: &Gq, file: &str) -> Vec<u8> {
    std::fs::read(gq.dir.path().join(file)).unwrap()
}

fn config(gq: &Gq, folder: &str) -> Value {
    serde_json::from_slice::<Value>(&read(gq, &format!("{folder}/config.json"))).unwrap()["quantization_config"].clone()
}

/// The header of a checkpoint's file, and where its bytes begin.
fn header(bytes: &[u8]) -> (serde_json::Map<String, Value>, usize) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let Value::Object(mut header) = serde_json::from_slice(&bytes[8..end]).unwrap() else { panic!() };
    header.remove("__metadata__");
    (header, end)
}

#[test]
fn a_calibrated_mix_is_closer_than_nearest_at_the_same_bytes() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let asked = ["convert", &demo, "--format", "compressed-tensors", "--size", "2.7MB"];
    let convert = |more: &[&str]| gq.json(&[&asked[..], more].concat());
    let made = convert(&["-o", "mix", "--keep-measurements"]);
    let written = read(&gq, "mix/model.safetensors");
    let said = made["file_bytes"].as_u64().unwrap();
    assert!(said == written.len() as u64 && (2_600_000..=2_700_000).contains(&said), "{made}");
    assert_eq!((&made["seen"]["checked"], &made["uncalibrated"]), (&Value::Bool(true), &Value::Null));
    assert!(!gq.ok(&["run", "mix", "-p", "It is a fine day", "-n", "1", "--temp", "0"]).is_empty());
    for file in ["tokenizer.json", "generation_config.json", "chat_template.jinja"] {
        assert!(!read(&gq, &format!("mix/{file}")).is_empty());
    }
    convert(&["-o", "nearest", "--calibration", "none"]);
    let (fed, nearest) = (divergence(&gq, "mix"), divergence(&gq, "nearest"));
    println!("{fed:.5} {nearest:.5}");
    assert!(fed < 0.8 * nearest, "{fed} {nearest}");
    // The same bytes on one thread and on several, from the measurements that were kept.
    for threads in ["1", "2"] {
        let folder = format!("again{threads}");
        let kept = ["--measurements", "mix.measurements", "-o", &folder];
        gq.ok(&[&["--threads", threads][..], &asked, &kept].concat());
        assert!(read(&gq, &format!("{folder}/model.safetensors")) == written, "on {threads} threads");
    }
    // What is there is not replaced.
    assert!(gq.fails(2, &[&asked[..], &["-o", "mix"]].concat()).contains("exists already"));
    // A second time adds to the loss, and is not done unasked.
    let said = gq.fails(2, &["convert", "mix", "-o", "twice.gq", "--bits", "8"]);
    assert!(said.contains("int4 x") && said.contains("--allow-requantize"), "{said}");
}

#[test]
fn every_matrix_has_the_form_that_the_configuration_says() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let convert = ["convert", &demo, "--format", "compressed-tensors", "--calibration", "none"];
    gq.ok(&[&convert[..], &["--bpw", "6", "--zero-points", "-o", "mixed"]].concat());
    gq.ok(&[&convert[..], &["--bpw", "4.5", "--group-size", "32", "-o", "uniform"]].concat());
    // One form alone: of all linear layers, as the library that owns the format writes it.
    let uniform = config(&gq, "uniform");
    let groups = uniform["config_groups"].as_object().unwrap();
    assert_eq!((groups.len(), &groups["group_0"]["targets"][0]), (1, &Value::from("Linear")));

    let (mixed, written) = (config(&gq, "mixed"), read(&gq, "mixed/model.safetensors"));
    let (tensors, _) = header(&written);
    let groups: Vec<&Value> = mixed["config_groups"].as_object().unwrap().values().collect();
    let ignored: Vec<&str> = mixed["ignore"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(groups.len() > 2 && ignored.contains(&"lm_head"), "{mixed}");
    let mut coded = 0;
    for (name, entry) in &tensors {
        let size =
            [("I64", 8), ("I32", 4), ("BF16", 2)].into_iter().find(|(kind, _)| entry["dtype"] == *kind);
        let begin = entry["data_offsets"][0].as_u64().unwrap();
        assert!(size.is_some_and(|(_, size)| begin.is_multiple_of(size)), "{name}");
        let Some(module) = name.strip_suffix(".weight_packed") else { continue };
        let targets = |group: &&&Value| {
            let targets = group["targets"].as_array().unwrap().iter().filter_map(Value::as_str);
            let mut targets = targets.filter_map(|target| target.strip_prefix("re:"));
            targets.any(|target| regex::Regex::new(&format!("^(?:{target})")).unwrap().is_match(module))
        };
        let found: Vec<&&Value> = groups.iter().filter(targets).collect();
        assert!(found.len() == 1 && !ignored.contains(&module), "{module}: {found:?}");
        let shape = |end: &str| tensors.get(&format!("{module}.weight_{end}")).map(|entry| &entry["shape"]);
        let (words, scales) =
            (entry["shape"][1].as_u64().unwrap(), shape("scale").unwrap()[1].as_u64().unwrap());
        let weights = &found[0]["weights"];
        let (bits, group) = (weights["num_bits"].as_u64().unwrap(), weights["group_size"].as_u64().unwrap());
        assert_eq!(32 * words, bits * group * scales, "{module}");
        assert_eq!(weights["symmetric"], shape("zero_point").is_none(), "{module}");
        coded += 1;
    }
    // What is of no code is left out by name, modules of one product together.
    for (name, entry) in &tensors {
        let Some(module) = name.strip_suffix(".weight").filter(|name| name.contains("layers.")) else {
            continue;
        };
        let is_matrix = entry["shape"].as_array().unwrap().len() == 2;
        assert!(!is_matrix || ignored.contains(&module), "{module}");
    }
    assert!(coded > 20, "{coded}");
}

#[test]
fn what_cannot_be_is_refused_by_name_before_anything_is_measured() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let refused = |options: &[&str]| gq.fails(2, &[&["convert", &demo, "-o", "m"][..], options].concat());
    let format = ["--format", "compressed-tensors"];
    let said = refused(&[&format[..], &["--bits", "4"]].concat());
    assert!(said.contains("--bits is not for --format compressed-tensors"), "{said}");
    let said = refused(&[&format[..], &["--force"]].concat());
    assert!(said.contains("--force"), "{said}");
    let said = refused(&["--group-size", "64"]);
    assert!(said.contains("--group-size is for --format compressed-tensors"), "{said}");
    let said = refused(&[&format[..], &["--drop-nfc"]].concat());
    assert!(said.contains("--drop-nfc is for --format gguf"), "{said}");
    // 192, 352 and 128 columns.
    let said = refused(&[&format[..], &["--group-size", "128"]].concat());
    assert!(said.contains("352 columns") && said.contains("--group-size 32 works"), "{said}");
    for (option, asked) in [("--size", "900kB"), ("--bpw", "3.9")] {
        let said = refused(&[&format[..], &[option, asked]].concat());
        let works = said.split(" works").next().and_then(|said| said.rsplit(&format!(": {option} ")).next());
        let works = works.unwrap_or_else(|| panic!("{said}"));
        let convert = ["convert", &demo, "--format", "compressed-tensors", option, works];
        let planned = gq.json(&[&convert[..], &["--calibration", "none", "--dry-run"]].concat());
        assert!(planned["file_bytes"].as_u64().is_some(), "{planned}");
    }
    let experts = testdata("tiny/qwen3-moe");
    let said =
        gq.fails(2, &[&["convert", &experts, "-o", "m"][..], &format, &["--calibration", "none"]].concat());
    assert!(said.contains("experts") && said.contains("--format gguf"), "{said}");
    assert!(std::fs::read_dir(gq.dir.path()).unwrap().next().is_none());
}

/// A budget that every matrix fits in as it is leaves none in codes: the checkpoint says nothing of any.
#[test]
fn a_budget_of_sixteen_bits_keeps_every_matrix_whole() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let convert = ["convert", &demo, "--format", "compressed-tensors", "--bpw", "16", "-o", "w"];
    let made = gq.json(&[&convert[..], &["--calibration", "none"]].concat());
    assert!(made["types"].as_array().unwrap().iter().all(|form| form["type"] == "BF16"), "{made}");
    assert!(config(&gq, "w").get("quantization_config").is_none());
    assert!(divergence(&gq, "w") < 1e-4);
}

#[test]
fn every_matrix_in_eight_bits() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let convert = ["convert", &demo, "--format", "compressed-tensors", "--calibration", "none", "--dry-run"];
    let eight = ["--code-bits", "8", "--group-size", "32", "--bpw", "8.5"];
    let made = gq.json(&[&convert[..], &eight].concat());
    for form in made["types"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|form| ["query", "value", "gate", "down"].iter().any(|role| form["role"] == *role))
    {
        assert_eq!(form["type"], "int8 g32", "{made}");
    }
}

#[test]
fn damaged_codes_are_refused_by_name() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let convert = ["convert", &demo, "--format", "compressed-tensors", "--calibration", "none"];
    gq.ok(&[&convert[..], &["--zero-points", "-o", "whole"]].concat());
    let (bytes, configuration) = (read(&gq, "whole/model.safetensors"), read(&gq, "whole/config.json"));
    let (tensors, end) = header(&bytes);
    let zero = tensors.keys().find(|name| name.ends_with("zero_point")).unwrap().clone();
    let module = zero.strip_suffix("_zero_point").unwrap().to_owned();
    let damaged = |change: &dyn Fn(&mut serde_json::Map<String, Value>, &mut Value)| {
        let (mut tensors, mut config) = (tensors.clone(), serde_json::from_slice(&configuration).unwrap());
        change(&mut tensors, &mut config);
        let mut text = Value::Object(tensors).to_string();
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend(text.as_bytes());
        file.extend(&bytes[end..]);
        let folder = gq.dir.path().join("whole");
        std::fs::write(folder.join("model.safetensors"), file).unwrap();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        gq.fails(3, &["run", "whole", "-p", "a", "-n", "1"])
    };
    // Tensors are renamed, so that all bytes of the file stay some tensor's.
    let renamed = |from: &str, to: &str| {
        let (from, to) = (format!("{module}_{from}"), format!("model.vision_tower.{to}"));
        damaged(&|tensors, _| {
            let entry = tensors.remove(&from).unwrap();
            tensors.insert(to.clone(), entry);
        })
    };
    assert!(renamed("scale", "a").contains(&format!("{module}_scale")));
    let shape = damaged(&|tensors, _| {
        let entry = &mut tensors[&format!("{module}_packed")]["shape"];
        let (rows, words) = (entry[0].as_u64().unwrap(), entry[1].as_u64().unwrap());
        *entry = serde_json::json!([words, rows]);
    });
    assert!(shape.contains(&module) && shape.contains("shape"), "{shape}");
    let said = damaged(&|_, config| {
        for group in config["quantization_config"]["config_groups"].as_object_mut().unwrap().values_mut() {
            group["weights"]["symmetric"] = true.into();
        }
    });
    assert!(said.contains("zero_point"), "{said}");
    for (key, value) in [("num_bits", 3.into()), ("actorder", "other".into()), ("type", "float".into())] {
        let said = damaged(&|_, config| {
            let groups = config["quantization_config"]["config_groups"].as_object_mut().unwrap();
            groups.values_mut().for_each(|group| group["weights"][key] = Value::clone(&value));
        });
        assert!(said.contains("quantization_config.config_groups") && said.contains("4 or 8 bits"), "{said}");
    }
    let said = damaged(&|_, config| {
        let groups = config["quantization_config"]["config_groups"].as_object_mut().unwrap();
        groups.values_mut().for_each(|group| group["weights"]["actorder"] = "group".into());
    });
    assert!(said.contains("weight_g_idx\" is missing"), "{said}");
}
