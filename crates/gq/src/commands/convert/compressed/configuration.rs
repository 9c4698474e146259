//! What `config.json` says of matrices in integer codes, as transformers and vLLM find them.

use super::units::Unit;
use gq_codec::GroupCode;
use gq_convert::Grouped;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The `quantization_config` of units in these forms, by canonical name; `whole` are modules that are never coded. None where
/// no matrix has codes: readers refuse a configuration without groups.
pub fn configuration(units: &[Unit], forms: &BTreeMap<String, Grouped>, whole: &[String]) -> Option<Value> {
    let form = |unit: &Unit| unit.tensors.first().and_then(|(name, _)| forms.get(name).copied());
    let mut ignore = whole.to_vec();
    let mut coded: BTreeMap<GroupCode, Vec<&Unit>> = BTreeMap::new();
    for unit in units {
        match form(unit) {
            Some(Grouped::Codes(code)) => coded.entry(code).or_default().push(unit),
            _ => ignore.extend(unit.modules()),
        }
    }
    if coded.is_empty() {
        return None;
    }
    let single = coded.len() == 1;
    let groups = coded.iter().enumerate().map(|(index, (code, units))| {
        let targets = if single { vec!["Linear".to_owned()] } else { targets(units) };
        (format!("group_{index}"), group(*code, targets))
    });
    Some(json!({
        "config_groups": groups.collect::<Map<_, _>>(),
        "format": "pack-quantized",
        "global_compression_ratio": null,
        "ignore": ignore,
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }))
}

fn group(code: GroupCode, targets: Vec<String>) -> Value {
    json!({
        "format": "pack-quantized",
        "input_activations": null,
        "output_activations": null,
        "targets": targets,
        "weights": {
            "actorder": null,
            "block_structure": null,
            "dynamic": false,
            "group_size": code.group(),
            "num_bits": code.bits(),
            "observer": "minmax",
            "observer_kwargs": {},
            "strategy": "group",
            "symmetric": code.is_symmetric(),
            "type": "int",
        },
    })
}

/// Expressions that match the modules of these units and no others: those that one product is made of in one expression,
/// whether or not a layer has all of them.
fn targets(units: &[&Unit]) -> Vec<String> {
    let mut layers: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for unit in units {
        let modules = unit.modules();
        let parts = modules.iter().filter_map(|module| module.rsplit_once('.'));
        let names: Vec<&str> = parts.clone().map(|(_, name)| name).collect();
        let parent = parts.clone().next().and_then(|(path, _)| path.rsplit_once('.')).map_or("", |(_, p)| p);
        layers.entry(format!(r"{parent}\.({})", names.join("|"))).or_default().insert(unit.layer);
    }
    let target = |(module, layers): (String, BTreeSet<usize>)| {
        let layers: Vec<String> = layers.into_iter().map(|layer| layer.to_string()).collect();
        format!(r"re:.*layers\.({})\.{module}$", layers.join("|"))
    };
    layers.into_iter().map(target).collect()
}
