//! Rotary frequencies next to those of the reference, bit for bit where its power function rounds correctly.

use crate::support::read;
use gq_checkpoint::{Family, ModelSpec, RopeKind, RopeSpec, parse_config};
use serde_json::Value;

fn rope<'a>(spec: &'a ModelSpec, layer_type: &str) -> &'a RopeSpec {
    let full = layer_type == "full_attention";
    let layer = spec.layers.iter().find(|layer| layer.attention.window.is_none() == full).unwrap();
    &spec.ropes[layer.attention.rope]
}

/// Distance in units in the last place; both are positive or zero.
fn ulps(a: f32, bits: u64) -> u64 {
    u64::from(a.to_bits()).abs_diff(bits)
}

#[test]
fn frequencies_are_those_of_the_reference() {
    let cases: Vec<Value> = serde_json::from_str(&read("configs/rope.json")).unwrap();
    assert_eq!(cases.len(), 20);
    let mut refused = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let spec = match parse_config(&case["config"].to_string()) {
            Ok(spec) => spec,
            Err(error) => {
                refused.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (layer_type, expected) in case["types"].as_object().unwrap() {
            let rope = rope(&spec, layer_type);
            let bits: Vec<u64> =
                expected["inv_freq"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect();
            assert_eq!(rope.inv_freq.len(), bits.len(), "{name}, {layer_type}");
            let distances: Vec<u64> = rope.inv_freq.iter().zip(&bits).map(|(a, b)| ulps(*a, *b)).collect();
            let exact = distances.iter().filter(|distance| **distance == 0).count();
            println!(
                "{name}, {layer_type}: {exact} of {} exact, worst {:?}",
                bits.len(),
                distances.iter().max()
            );
            // Between bounds that are no whole numbers the reference's ramp is rounded at every step in f32.
            let (worst, least) = if name == "yarn, truncate false" { (3, 60) } else { (1, 98) };
            assert!(
                distances.iter().all(|distance| *distance <= worst),
                "{name}, {layer_type}: {distances:?}"
            );
            assert!(
                exact + 1 >= bits.len() || exact * 100 >= bits.len() * least,
                "{name}, {layer_type}: {exact} of {} exact",
                bits.len()
            );
            // Those of longer contexts, where they are others.
            let long = expected["long_inv_freq"].as_array().into_iter().flatten();
            let long: Vec<u64> = long.map(|x| x.as_u64().unwrap()).collect();
            let ours = rope.long.as_ref().map_or(&[][..], |long| &long.inv_freq);
            assert_eq!(ours.len(), long.len(), "{name}");
            assert!(ours.iter().zip(&long).all(|(a, b)| ulps(*a, *b) <= 1), "{name}");
            let factor = expected["attention_factor"].as_f64().unwrap() as f32;
            assert_eq!(rope.attention_factor, factor, "{name}, {layer_type}");
        }
    }
    assert_eq!(refused, [""; 0]);
}

#[test]
fn phi_4_mini() {
    let spec = parse_config(&read("configs/phi-4-mini.json")).unwrap();
    assert_eq!((spec.family, spec.layers.len(), spec.tied_head), (Family::Phi3, 32, true));
    let attention = &spec.layers[31].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (24, 8, 128));
    assert_eq!((attention.window, spec.max_positions), (Some(262_144), 131_072));
    let rope = &spec.ropes[0];
    assert_eq!((rope.turning(), rope.kind, spec.short_context()), (96, RopeKind::Factors, Some(4096)));
    assert_eq!(rope.attention_factor, (1.0f64 + 32f64.ln() / 4096f64.ln()).sqrt() as f32);
    assert_eq!(rope.frequencies(4096)[0], rope.frequencies(4097)[0]);
    assert!(rope.frequencies(4096)[47] > 47.0 * rope.frequencies(4097)[47]);
    // The name that the first files have for it, and the context on top, which counts before any other.
    let mut config: Value = serde_json::from_str(&read("configs/phi-4-mini.json")).unwrap();
    config["rope_scaling"]["type"] = "su".into();
    config["rope_scaling"]["original_max_position_embeddings"] = 64.into();
    assert_eq!(parse_config(&config.to_string()).unwrap(), spec);
    for (key, value, said) in [
        ("partial_rotary_factor", serde_json::json!(0.01), "partial_rotary_factor"),
        ("partial_rotary_factor", serde_json::json!(0.758), "even numbers"),
        ("partial_rotary_factor", serde_json::json!(0.5), "short_factor"),
        ("rope_scaling", serde_json::json!({"rope_type": "linear", "factor": 2.0}), "default, longrope"),
        ("lm_head_bias", true.into(), "lm_head_bias"),
        ("interpolate_factor", 2.into(), "interpolate_factor"),
    ] {
        let mut config: Value = serde_json::from_str(&read("configs/phi-4-mini.json")).unwrap();
        config[key] = value;
        let error = parse_config(&config.to_string()).unwrap_err().to_string();
        assert!(error.contains(said), "{key}: {error}");
    }
}
