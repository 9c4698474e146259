//! Checkpoints that other quantizers wrote and that are not read: each is refused with what is not read and what to do,
//! and what the advice says is true.

use crate::adapters::{Tensor, read, save, tensors, write};
use crate::run::{Gq, testdata};
use serde_json::{Value, json};
use std::path::Path;

/// A tiny checkpoint with other tensors and settings, in the scratch directory.
fn checkpoint(gq: &Gq, family: &str, quantization: Value, change: impl Fn(&mut Vec<Tensor>)) {
    let from = testdata(&format!("tiny/{family}"));
    let dir = gq.path("m");
    std::fs::create_dir_all(&dir).unwrap();
    let mut config = read(&Path::new(&from).join("config.json"));
    if !quantization.is_null() {
        config["quantization_config"] = quantization;
    }
    write(&dir.join("config.json"), &config);
    let mut list = tensors(&Path::new(&from).join("model.safetensors"));
    change(&mut list);
    save(&list, &dir.join("model.safetensors"));
}

/// The error of a conversion, which leaves nothing behind.
fn refused(gq: &Gq) -> Value {
    let output = gq.run(&["convert", "m", "-o", "m.gq", "-e", "tq4", "--no-grid", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!gq.path("m.gq").exists() && !gq.path("m.gq.partial").exists());
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].clone()
}

fn is_projection(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

/// Every projection in float8 with the scale of its tensor.
fn in_float8(list: &mut Vec<Tensor>) {
    let mut scales = Vec::new();
    for (name, dtype, _, bytes) in list.iter_mut().filter(|tensor| is_projection(&tensor.0)) {
        *dtype = "F8_E4M3".into();
        // Between 1 and 2.
        *bytes = (0..bytes.len() / 2).map(|at| 0x38 + (at % 8) as u8).collect();
        scales.push((format!("{name}_scale"), "F32".into(), vec![1], 0.01f32.to_le_bytes().to_vec()));
    }
    list.append(&mut scales);
}

fn scale(name: &str) -> Tensor {
    (name.to_owned(), "F32".to_owned(), vec![1], 1f32.to_le_bytes().to_vec())
}

const STORED: &str = "of those gq reads float8 weights with one scale tensor each";
const FORM: &str = "what a quantizer stored in this form is not read";
const INSTEAD: &str = "give the checkpoint that it was made from";

#[test]
fn float8_with_scales_of_other_things_is_refused_with_what_to_do() {
    let compressed = |format: &str| json!({"quant_method": "compressed-tensors", "format": format});
    let fp8 = json!({"quant_method": "fp8", "activation_scheme": "static"});
    let layer = "model.layers.0.self_attn";
    let cases = [
        (compressed("float-quantized"), format!("{layer}.scale_of_something_scale"), STORED),
        (compressed("naive-quantized"), String::new(), FORM),
        (json!({"quant_method": "modelopt", "quant_algo": "FP8"}), String::new(), FORM),
        (json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}), String::new(), FORM),
    ];
    for (quantization, more, advice) in cases {
        let gq = Gq::new();
        checkpoint(&gq, "llama", quantization.clone(), |list| {
            in_float8(list);
            list.extend((!more.is_empty()).then(|| scale(&more)));
        });
        let error = refused(&gq);
        let (said, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap_or_default());
        assert!(hint.contains(advice) && hint.contains(INSTEAD), "{error}");
        let name = match more.as_str() {
            "" => quantization["format"].as_str().or(quantization["quant_method"].as_str()).unwrap(),
            name => name,
        };
        assert!(said.contains(name), "{error}");
    }
    // What the advice says is read is read.
    for (quantization, more) in [
        (compressed("float-quantized"), None),
        (compressed("float-quantized"), Some("k_scale")),
        (fp8.clone(), Some("k_proj.k_scale")),
        (fp8.clone(), Some("v_proj.output_scale")),
        (fp8.clone(), Some("q_proj.input_scale")),
        (fp8, Some("q_proj.activation_scale")),
    ] {
        let gq = Gq::new();
        checkpoint(&gq, "llama", quantization, |list| {
            in_float8(list);
            list.extend(more.map(|more| scale(&format!("{layer}.{more}"))));
        });
        let output = gq.run(&["convert", "m", "-o", "m.gq", "-e", "tq4", "--no-grid"]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert_eq!(told.contains("1 scales of activations or caches"), more.is_some(), "{told}");
    }
}

#[test]
fn what_other_quantizers_stored_is_refused_with_what_to_do() {
    let stored = |more: &'static [&'static str]| {
        move |list: &mut Vec<Tensor>| {
            let names: Vec<_> = list.iter().map(|tensor| tensor.0.clone()).collect();
            for name in names.iter().filter(|name| is_projection(name)) {
                let name = name.trim_end_matches(".weight");
                list.extend(
                    more.iter().map(|more| (format!("{name}.{more}"), "U8".into(), vec![1], vec![0])),
                );
            }
        }
    };
    let four_bits: &[&str] = &["weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4"];
    for more in
        [four_bits, &["SCB", "weight_format"], &["qweight", "qzeros", "scales", "g_idx"], &["weight_packed"]]
    {
        let gq = Gq::new();
        checkpoint(&gq, "llama", Value::Null, stored(more));
        let error = refused(&gq);
        let hint = error["hint"].as_str().unwrap_or_default();
        assert!(hint.contains(STORED) && hint.contains(INSTEAD), "{error}");
        assert!(more.iter().any(|more| error["message"].as_str().unwrap().contains(more)), "{error}");
    }
    // Plain weights with what is left over of a quantizer.
    for method in ["bitsandbytes", "hqq", "torchao", "mxfp4"] {
        let gq = Gq::new();
        checkpoint(&gq, "llama", json!({"quant_method": method}), |_| ());
        let error = refused(&gq);
        let (said, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap_or_default());
        assert!(said.contains("quantization_config.quant_method") && said.contains(method), "{error}");
        assert!(hint.contains("take quantization_config out of config.json"), "{error}");
        // The advice is true.
        checkpoint(&gq, "llama", Value::Null, |_| ());
        gq.ok(&["convert", "m", "-o", "m.gq", "-e", "tq4", "--no-grid"]);
    }
}

/// Of what `gq` reads, an entry that is left over beside plain weights changes nothing.
#[test]
fn plain_weights_with_a_left_over_entry_of_a_form_that_is_read_are_plain() {
    let gq = Gq::new();
    for method in ["gptq", "awq"] {
        checkpoint(&gq, "llama", json!({"quant_method": method, "bits": 4, "group_size": 128}), |_| ());
        let output = gq.run(&["inspect", "m", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("int4"), "{seen}");
        // No flag is asked for: nothing is quantized.
        gq.ok(&["convert", "m", "-o", &format!("{method}.gq"), "-e", "tq4", "--no-grid"]);
    }
}

#[test]
fn experts_of_which_each_has_its_own_matrix_are_refused_with_what_to_do() {
    let layer = "model.layers.0.experts";
    let fused = format!("{layer}.gate_up_proj");
    let gq = Gq::new();
    checkpoint(&gq, "gemma4-moe", Value::Null, |list| {
        let at = list.iter().position(|tensor| tensor.0 == fused).unwrap();
        let (_, dtype, shape, bytes) = list.remove(at);
        let (experts, outputs, inputs) = (shape[0], shape[1], shape[2]);
        for expert in 0..experts {
            for (half, name) in ["gate_proj", "up_proj"].into_iter().enumerate() {
                let from = (expert * outputs + half * outputs / 2) * inputs * 2;
                let part = bytes[from..from + outputs / 2 * inputs * 2].to_vec();
                let name = format!("{layer}.{expert}.{name}.weight");
                list.push((name, dtype.clone(), vec![outputs / 2, inputs], part));
            }
        }
    });
    let error = refused(&gq);
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(error["message"].as_str().unwrap().contains(".experts.0."), "{error}");
    assert!(
        hint.contains("one tensor for each projection") && hint.contains("give that checkpoint"),
        "{error}"
    );
    checkpoint(&gq, "gemma4-moe", Value::Null, |list| list.push(scale(&format!("{fused}_scale"))));
    let error = refused(&gq);
    assert!(error["message"].as_str().unwrap().contains("gate_up_proj_scale"), "{error}");
    assert!(error["hint"].as_str().unwrap_or_default().contains(STORED), "{error}");
    // The fused ones are read.
    checkpoint(&gq, "gemma4-moe", Value::Null, |_| ());
    gq.ok(&["convert", "m", "-o", "m.gq", "-e", "tq4", "--no-grid"]);
}
