//! What the user wants, as a value: the recipe that travels in the file, and the resources that do not change it.

use gq_checkpoint::Role;
use gq_tensor::{Encoding, RotationKind, RotationSpec};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// How to store a tensor: as it is, or coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The source's own bytes.
    Exact,
    /// This encoding; a float dtype must be the source's own.
    Coded(Encoding),
    /// The smallest grid that the weights already sit on, without loss; others are refused.
    Grid,
}

impl Choice {
    /// `exact`, `grid` or an encoding's name.
    pub fn from_name(name: &str) -> Option<Choice> {
        match name.to_ascii_lowercase().as_str() {
            "exact" => Some(Choice::Exact),
            "grid" => Some(Choice::Grid),
            name => Encoding::from_name(name).map(Choice::Coded),
        }
    }

    /// The name read by [`Choice::from_name`].
    pub fn name(self) -> String {
        match self {
            Choice::Exact => "exact".to_owned(),
            Choice::Grid => "grid".to_owned(),
            Choice::Coded(encoding) => encoding.name(),
        }
    }
}

impl Serialize for Choice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Choice::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("unknown encoding {name:?}")))
    }
}

/// Tensors whose names match `pattern` get `choice`; of several matching rules the last wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Regular expression, searched anywhere in the tensor's name.
    pub pattern: String,
    /// How to store the tensors that match.
    pub encoding: Choice,
}

/// Everything that decides the bytes of the output, given a source and a version of this program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Projections of attention and MLP, experts included.
    pub body: Choice,
    /// Token embedding (the head too, where they are tied).
    pub embedding: Choice,
    /// Output head of untied models.
    pub head: Choice,
    /// Per-layer embedding table (Gemma 4 E models).
    pub per_layer_table: Choice,
    /// Gates and projections of per-layer embeddings.
    pub per_layer_projection: Choice,
    /// Exceptions by tensor name.
    pub overrides: Vec<Override>,
    /// Transform of the rows before coding.
    pub rotation: RotationKind,
    /// Source of the rotation's signs or entries.
    pub seed: u64,
    /// Whether vision and audio towers are carried along, byte for byte.
    #[serde(default)]
    pub keep_towers: bool,
    /// The measurements that decide codes and allocation.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Codes that a budget chooses among.
    #[serde(default)]
    pub codes: Codes,
    /// Whether weights that already sit on a grid are stored on it where it takes no more bytes.
    #[serde(default)]
    pub grids: bool,
    /// Bytes or bits to spend; `body` is then where no measurement says otherwise.
    #[serde(default)]
    pub budget: Option<Budget>,
}

/// Identity of measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// sha256 of the texts.
    pub text_sha256: String,
    /// Tokens that moments were measured on.
    pub tokens: usize,
    /// Digest of everything measured.
    pub sha256: String,
}

/// Families of codes for budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codes {
    /// Lloyd-Max codes of 2 to 8 bits: the fastest to multiply.
    Scalar,
    /// Trellis codes of 2 to 6 bits with 2^10 states, and scalar ones of 7 and 8: closer at the same bytes.
    #[default]
    Trellis,
    /// The same with 2^12 states: a little closer, several times slower to make.
    TrellisLarge,
    /// With 2^14 states: closer by a little again, four times slower again.
    TrellisLargest,
}

/// What a conversion may spend.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Bytes of the whole file.
    FileBytes(u64),
    /// Mean bits per weight of the body, scales included.
    BodyBits(f64),
    /// Expected divergence from the original, in nats per token: the smallest file that keeps it.
    Divergence(f64),
    /// Mean bits per weight, scales included, of the body and of tables (embedding, head, per-layer table), spent
    /// together. Matrices that sit on a grid of at most [`Budget::LOSSLESS_BITS`] stay on it and take no part.
    MeanBits {
        /// Of the body.
        body: f64,
        /// Of the tables.
        tables: f64,
    },
}

impl Budget {
    /// What `gq convert` spends unless told otherwise: a little more than 4 bits for the body, and for the tables what
    /// others give them.
    pub const DEFAULT: Budget = Budget::MeanBits { body: Budget::DEFAULT_BODY_BITS, tables: 6.5 };

    /// The bits of the body in [`Budget::DEFAULT`].
    pub const DEFAULT_BODY_BITS: f64 = 4.25;

    /// Bits per weight, scales included, up to which [`Budget::MeanBits`] keeps what sits on a grid without loss.
    pub const LOSSLESS_BITS: f64 = 6.5;
}

/// Limits that leave the output's bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads that will execute the plan.
    pub threads: usize,
    /// Largest anonymous memory plus read buffers, in bytes.
    pub max_memory: Option<u64>,
}

/// A policy that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An override is not a regular expression.
    #[error("override {pattern:?}: {actual}")]
    Pattern {
        /// The text given.
        pattern: String,
        /// What is wrong with it.
        actual: String,
    },
    /// An override matches no tensor.
    #[error("override {pattern:?} matches none of the {tensors} tensors")]
    Unmatched {
        /// The pattern.
        pattern: String,
        /// Tensors there are.
        tensors: usize,
    },
}

const EIGHT_BITS: Choice = Choice::Coded(Encoding::Turbo { bits: 8, group: gq_tensor::ScaleGroup::Row });

impl Policy {
    /// The default recipe around a body encoding: tables and per-layer projections at 8 bits,
    /// a seeded Hadamard rotation.
    pub fn new(body: Choice) -> Policy {
        Policy {
            body,
            embedding: EIGHT_BITS,
            head: EIGHT_BITS,
            per_layer_table: EIGHT_BITS,
            per_layer_projection: EIGHT_BITS,
            overrides: Vec::new(),
            rotation: RotationKind::Hadamard,
            seed: 0,
            keep_towers: false,
            calibration: None,
            codes: Codes::default(),
            grids: true,
            budget: None,
        }
    }

    /// The rotation of coded matrices.
    pub fn rotation(&self) -> RotationSpec {
        match self.rotation {
            RotationKind::None => RotationSpec::NONE,
            kind => RotationSpec { kind, seed: self.seed },
        }
    }

    /// Compiles the overrides and checks that each matches some tensor.
    ///
    /// # Errors
    /// [`PolicyError`] with the pattern.
    pub(crate) fn rules(&self, names: &[&str]) -> Result<Rules, PolicyError> {
        let compile = |rule: &Override| {
            let pattern = &rule.pattern;
            let regex = Regex::new(pattern).map_err(|e| PolicyError::Pattern {
                pattern: pattern.clone(),
                actual: e.to_string().lines().last().unwrap_or_default().trim().to_owned(),
            })?;
            match names.iter().any(|name| regex.is_match(name)) {
                true => Ok((regex, rule.clone())),
                false => Err(PolicyError::Unmatched { pattern: pattern.clone(), tensors: names.len() }),
            }
        };
        Ok(Rules(self.overrides.iter().map(compile).collect::<Result<_, _>>()?))
    }
}

/// Compiled overrides.
pub(crate) struct Rules(Vec<(Regex, Override)>);

impl Rules {
    /// The last rule that matches this name.
    pub(crate) fn last_match(&self, name: &str) -> Option<&Override> {
        self.0.iter().rev().find(|(regex, _)| regex.is_match(name)).map(|(_, rule)| rule)
    }
}

/// What a role asks for: an encoding, or to be left out, and why.
pub(crate) enum Rule {
    Store(Choice, String),
    Drop(String),
}

impl Policy {
    /// What this policy does with a role. `tied`: the embedding is the output head too.
    pub(crate) fn wish(&self, role: Role, tied: bool) -> Rule {
        let store = |choice, reason: &str| Rule::Store(choice, reason.to_owned());
        match role {
            Role::Embedding if tied => store(self.embedding, "embedding, also the head"),
            Role::Embedding => store(self.embedding, "embedding"),
            Role::Head => store(self.head, "head"),
            Role::PerLayerTable => store(self.per_layer_table, "per-layer embedding table"),
            Role::PerLayerProjection | Role::PerLayerGate => {
                store(self.per_layer_projection, "per-layer projection")
            }
            Role::Query
            | Role::Key
            | Role::Value
            | Role::Output
            | Role::Gate
            | Role::Up
            | Role::Down
            | Role::ExpertGateUp
            | Role::ExpertDown => store(self.body, "body"),
            Role::Norm => store(Choice::Exact, "kept exactly: norm"),
            Role::Bias => store(Choice::Exact, "kept exactly: bias"),
            Role::Router => store(Choice::Exact, "kept exactly: router"),
            Role::Scalar => store(Choice::Exact, "kept exactly: scalar"),
            Role::Tower if self.keep_towers => store(Choice::Exact, "kept exactly: vision or audio tower"),
            Role::Tower => Rule::Drop("vision or audio tower".to_owned()),
            Role::WeightScale => Rule::Drop("multiplied into its tensor".to_owned()),
            Role::Unused => Rule::Drop("not used by the graph".to_owned()),
        }
    }
}
