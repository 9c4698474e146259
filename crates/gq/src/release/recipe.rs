//! `release.toml`: which sizes, measured on what, under which limits, described how.

use crate::failure::{Exit, Failure};
use crate::units;
use gq_checkpoint::TextsFrom;
use gq_convert::{Budget, Choice, Override, Policy};
use gq_eval::Gate;
use gq_tensor::{Encoding, RotationKind, ScaleGroup};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    base_model: Option<String>,
    repo: Option<String>,
    #[serde(default)]
    card: CardFields,
    measurements: Option<PathBuf>,
    #[serde(default)]
    lora: Vec<LoraEntry>,
    tokenizer_from: Option<String>,
    evaluation: Evaluation,
    #[serde(default)]
    defaults: Encodings,
    variant: Vec<Encodings>,
}

/// What only the model card says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CardFields {
    /// Identifier of the licence on the Hub.
    pub license: Option<String>,
    /// Its name, when the identifier is `other`.
    pub license_name: Option<String>,
    /// Where its text is.
    pub license_link: Option<String>,
    /// Language codes.
    #[serde(default)]
    pub language: Vec<String>,
    /// More tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A paragraph for the top of the card.
    pub description: Option<String>,
}

/// An adapter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraEntry {
    /// Folder, seen from the recipe.
    pub path: PathBuf,
    /// What its change is multiplied by.
    #[serde(default = "one")]
    pub weight: f64,
}

/// Where no measurement says otherwise.
const FOUR_BITS: Choice = Choice::Coded(Encoding::Turbo { bits: 4, group: ScaleGroup::Row });

fn one() -> f64 {
    1.0
}

/// What the sizes are measured on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Text, seen from the recipe.
    pub text: PathBuf,
    /// Tokens of a window.
    #[serde(default = "ctx")]
    pub ctx: usize,
    /// Windows; all of the text when absent.
    pub windows: Option<usize>,
    /// Limits that every size must keep.
    #[serde(default)]
    pub fail_above: Vec<String>,
}

fn ctx() -> usize {
    512
}

/// Options of `gq convert`, by the same names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encodings {
    name: Option<String>,
    bits: Option<u8>,
    size: Option<String>,
    bpw: Option<f64>,
    target_kld: Option<f64>,
    encoding: Option<String>,
    embedding: Option<String>,
    head: Option<String>,
    per_layer_table: Option<String>,
    per_layer_projection: Option<String>,
    #[serde(default, rename = "override")]
    overrides: Vec<String>,
    rotation: Option<String>,
    seed: Option<u64>,
    #[serde(default)]
    fail_above: Vec<String>,
}

/// A recipe that has been understood.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Beginning of the files' names; the source's name when absent.
    pub name: Option<String>,
    /// The repository that was quantized, when the source is not one itself.
    pub base_model: Option<String>,
    /// The repository that the release will be in, for the lines of the card.
    pub repo: Option<String>,
    /// What only the model card says.
    pub card: CardFields,
    /// Measurements of `gq calibrate` to convert by, their folder resolved.
    pub measurements: Option<PathBuf>,
    /// Adapters, their folders resolved.
    pub lora: Vec<LoraEntry>,
    /// Where tokenizer and chat template come from, a folder resolved; the adapters when absent.
    pub tokenizer_from: Option<TextsFrom>,
    /// What the sizes are measured on, the text resolved.
    pub evaluation: Evaluation,
    /// The sizes.
    pub variants: Vec<Variant>,
}

/// One size.
#[derive(Clone, Debug)]
pub struct Variant {
    /// End of its file's name.
    pub name: String,
    /// How it is converted.
    pub policy: Policy,
    /// Limits that it must keep.
    pub gates: Vec<Gate>,
}

impl Recipe {
    /// Reads a recipe; paths in it are seen from its folder.
    pub fn read(path: &Path) -> Result<Recipe, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::io(path, &e))?;
        Recipe::parse(&text, path.parent().unwrap_or(Path::new("")))
            .map_err(|failure| failure.prefixed(&format!("{}: ", path.display())))
    }

    fn parse(text: &str, folder: &Path) -> Result<Recipe, Failure> {
        let written: Written = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let place = line.map_or_else(String::new, |line| format!("line {line}: "));
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            Failure::new(Exit::Input, "recipe.toml", format!("{place}{message}")).at("recipe")
        })?;
        let mut evaluation = written.evaluation;
        let common = gates(&evaluation.fail_above)?;
        evaluation.text = folder.join(&evaluation.text);
        if written.variant.is_empty() {
            return Err(bad("variant", "there is no [[variant]]"));
        }
        if written.defaults.name.is_some() {
            return Err(bad("defaults.name", "only a variant has a name"));
        }
        let variants = written.variant.iter().map(|entry| variant(entry, &written.defaults, &common));
        let variants = variants.collect::<Result<Vec<_>, _>>()?;
        for (index, variant) in variants.iter().enumerate() {
            check_name("variant.name", &variant.name)?;
            if variants[..index].iter().any(|other| other.name.eq_ignore_ascii_case(&variant.name)) {
                return Err(bad("variant.name", &format!("{:?} appears twice", variant.name)));
            }
        }
        if let Some(name) = &written.name {
            check_name("name", name)?;
        }
        if written.measurements.is_none() && variants.iter().any(|variant| variant.policy.budget.is_some()) {
            return Err(bad("variant", "size, bpw and target_kld need measurements, made by `gq calibrate`"));
        }
        let tokenizer_from = written.tokenizer_from.as_deref().map(|text| match text {
            "base" => Ok(TextsFrom::Checkpoint),
            "adapter" => Ok(TextsFrom::Adapters),
            dir if folder.join(dir).is_dir() => Ok(TextsFrom::Folder(folder.join(dir))),
            _ => Err(bad("tokenizer_from", "expected base, adapter, or a folder with tokenizer.json")),
        });
        let resolve = |entry: LoraEntry| LoraEntry { path: folder.join(entry.path), ..entry };
        Ok(Recipe {
            name: written.name,
            base_model: written.base_model,
            repo: written.repo,
            card: written.card,
            measurements: written.measurements.map(|dir| folder.join(dir)),
            lora: written.lora.into_iter().map(resolve).collect(),
            tokenizer_from: tokenizer_from.transpose()?,
            evaluation,
            variants,
        })
    }
}

fn variant(entry: &Encodings, defaults: &Encodings, common: &[Gate]) -> Result<Variant, Failure> {
    let budget = match (&entry.size, entry.bpw, entry.target_kld) {
        (None, None, None) => None,
        (Some(size), None, None) => {
            Some(Budget::FileBytes(units::parse_bytes(size).map_err(|e| bad("size", &e))?))
        }
        (None, Some(bits), None) if (0.5..=16.0).contains(&bits) => Some(Budget::BodyBits(bits)),
        (None, Some(_), None) => return Err(bad("bpw", "expected 0.5 to 16")),
        (None, None, Some(kld)) if kld.is_finite() && kld > 0.0 => Some(Budget::Divergence(kld)),
        (None, None, Some(_)) => return Err(bad("target_kld", "expected a number above 0")),
        _ => return Err(bad("variant", "more than one of size, bpw and target_kld is given")),
    };
    if budget.is_some() && (entry.bits.is_some() || entry.encoding.is_some()) {
        return Err(bad("variant", "size, bpw and target_kld exclude bits and encoding"));
    }
    let body = match (&entry.encoding, entry.bits, &defaults.encoding, defaults.bits) {
        (Some(_), Some(_), ..) => return Err(bad("variant", "both encoding and bits are given")),
        (Some(name), None, ..) | (None, None, Some(name), None) => choice("encoding", name)?,
        (None, Some(bits), ..) | (None, None, None, Some(bits)) if (1..=8).contains(&bits) => {
            Choice::Coded(Encoding::Turbo { bits, group: ScaleGroup::Row })
        }
        (None, None, None, None) if budget.is_some() => FOUR_BITS,
        (None, None, None, None) => {
            return Err(bad("variant", "none of encoding, bits, size, bpw and target_kld is given"));
        }
        _ => return Err(bad("bits", "expected 1 to 8")),
    };
    let mut policy = Policy { budget, ..Policy::new(body) };
    let places: [(&str, &mut Choice, &Option<String>, &Option<String>); 4] = [
        ("embedding", &mut policy.embedding, &entry.embedding, &defaults.embedding),
        ("head", &mut policy.head, &entry.head, &defaults.head),
        ("per_layer_table", &mut policy.per_layer_table, &entry.per_layer_table, &defaults.per_layer_table),
        (
            "per_layer_projection",
            &mut policy.per_layer_projection,
            &entry.per_layer_projection,
            &defaults.per_layer_projection,
        ),
    ];
    for (field, place, own, default) in places {
        if let Some(name) = own.as_ref().or(default.as_ref()) {
            *place = choice(field, name)?;
        }
    }
    for rule in defaults.overrides.iter().chain(&entry.overrides) {
        let (pattern, name) = rule.rsplit_once('=').ok_or_else(|| bad("override", "expected REGEX=ENC"))?;
        policy.overrides.push(Override { pattern: pattern.to_owned(), encoding: choice("override", name)? });
    }
    if let Some(name) = entry.rotation.as_ref().or(defaults.rotation.as_ref()) {
        let kind = RotationKind::ALL.into_iter().find(|kind| kind.name() == name);
        policy.rotation = kind.ok_or_else(|| bad("rotation", "expected hadamard, haar or none"))?;
    }
    policy.seed = entry.seed.or(defaults.seed).unwrap_or(0);
    let mut limits = common.to_vec();
    for gate in gates(&defaults.fail_above)?.into_iter().chain(gates(&entry.fail_above)?) {
        // The more special limit counts.
        limits.retain(|other| other.name != gate.name);
        limits.push(gate);
    }
    let name = entry.name.clone().unwrap_or_else(|| match (&entry.size, entry.bpw, entry.target_kld) {
        (Some(size), ..) => size.replace(' ', ""),
        (None, Some(bits), _) => format!("{bits}bpw"),
        (None, None, Some(kld)) => format!("kld{kld}"),
        (None, None, None) => policy.body.name(),
    });
    Ok(Variant { name, policy, gates: limits })
}

fn choice(field: &str, name: &str) -> Result<Choice, Failure> {
    Choice::from_name(name).ok_or_else(|| bad(field, &format!("there is no encoding {name:?}")))
}

fn gates(texts: &[String]) -> Result<Vec<Gate>, Failure> {
    Ok(texts.iter().map(|text| text.parse()).collect::<Result<Vec<Gate>, _>>()?)
}

/// Names become file names, on any system.
fn check_name(field: &str, name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match !name.is_empty() && name.len() <= 128 && name.chars().all(plain) && !name.starts_with(['.', '-']) {
        true => Ok(()),
        false => Err(bad(field, &format!("{name:?}: letters, digits, '.', '_' and '-' make a name"))),
    }
}

fn bad(field: &str, what: &str) -> Failure {
    Failure::new(Exit::Input, "recipe", format!("{field}: {what}")).at(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[evaluation]\ntext = \"t.txt\"\n";

    fn parse(text: &str) -> Result<Recipe, String> {
        Recipe::parse(text, Path::new("folder")).map_err(|failure| failure.message)
    }

    #[test]
    fn defaults_and_exceptions() {
        let recipe = parse(
            "name = 'm'\n[card]\nlicense = 'mit'\n[evaluation]\ntext = 't.txt'\nctx = 128\nfail_above = ['kld=0.5', 'top1=0.5']\n\
             [defaults]\nembedding = 'tq6'\noverride = ['down_proj=tq6']\n[[variant]]\nbits = 4\n\
             [[variant]]\nname = 'small'\nencoding = 'tq2-g32'\nembedding = 'tq3'\nfail_above = ['kld=2']\n",
        )
        .unwrap();
        assert_eq!(recipe.evaluation.text, Path::new("folder/t.txt"));
        assert_eq!(recipe.card.license.as_deref(), Some("mit"));
        let [first, second] = &recipe.variants[..] else { panic!() };
        assert_eq!((first.name.as_str(), first.policy.embedding.name()), ("tq4", "tq6".to_owned()));
        assert_eq!((second.name.as_str(), second.policy.embedding.name()), ("small", "tq3".to_owned()));
        assert_eq!(second.policy.overrides.len(), 1);
        let limits: Vec<_> = second.gates.iter().map(|gate| (gate.name.as_str(), gate.limit)).collect();
        assert_eq!(limits, [("top1", 0.5), ("kld", 2.0)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, message) in [
            ("x = 1\n[evaluation]\ntext = 't'\n[[variant]]\nbits = 4", "unknown field `x`"),
            ("[evaluation]\ntext = 't'\nwindow = 4\n[[variant]]\nbits = 4", "line 3: unknown field `window`"),
            ("[[variant]]\nbits = 4", "missing field `evaluation`"),
            (SMALL, "missing field `variant`"),
            (&format!("{SMALL}[[variant]]\nbits = 9"), "bits: expected 1 to 8"),
            (&format!("{SMALL}[[variant]]\nname = 'x'"), "none of encoding, bits"),
            (&format!("{SMALL}[[variant]]\nencoding = 'q4'"), "there is no encoding \"q4\""),
            (
                &format!("{SMALL}[[variant]]\nbits = 4\n[[variant]]\nencoding = 'TQ4'"),
                "\"tq4\" appears twice",
            ),
            (&format!("{SMALL}[[variant]]\nbits = 4\nname = '../x'"), "make a name"),
            (&format!("{SMALL}fail_above = ['kld']\n[[variant]]\nbits = 4"), "is not NAME=LIMIT"),
            (&format!("{SMALL}[[variant]]\nbpw = 3.5"), "need measurements"),
            (&format!("measurements = 't'\n{SMALL}[[variant]]\nbpw = 3.5\nbits = 4"), "exclude"),
            (&format!("measurements = 't'\n{SMALL}[[variant]]\nsize = '80G'"), "size: expected a number"),
            ("a = ", "line 1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
