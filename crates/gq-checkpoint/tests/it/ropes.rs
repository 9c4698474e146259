//! Rotary frequencies next to those of the reference, bit for bit where its power function rounds correctly.

use crate::support::read;
use gq_checkpoint::{ModelSpec, RopeSpec, parse_config};
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
                exact * 100 >= bits.len() * least,
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
