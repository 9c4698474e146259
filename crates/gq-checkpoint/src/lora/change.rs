//! What adapters do to tensors: each module's parts matched with the tensors they are for.

use super::factors::{Factors, Layout, both, check_shape};
use super::fused::cut;
use super::named_module::NamedModule;
use super::parameter::{of_expert, of_parameter, parameter};
use super::tied::{EMBEDDING, equal_bytes};
use super::{Adapter, AdapterError};
use crate::declared::Layout as InFiles;
use crate::fused::FusedTensor;
use crate::names::canonical;
use crate::safetensors::HeaderEntry;
use crate::{ModelSpec, Role, SourceTensor};
use std::collections::HashMap;

/// What one adapter does to one tensor.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub adapter: usize,
    /// Replaces the tensor.
    pub whole: Option<HeaderEntry>,
    /// Replaces single rows, after that.
    pub tokens: Option<TokenRows>,
    /// Added, after that.
    pub factors: Option<Factors>,
    /// Of a bias: added times a scale.
    pub added: Option<(HeaderEntry, f64)>,
}

/// Rows that replace others.
#[derive(Clone, Debug)]
pub(super) struct TokenRows {
    entry: HeaderEntry,
    /// Row of the tensor to row of `entry`.
    places: HashMap<usize, usize>,
}

impl TokenRows {
    /// The tensor and its row that replaces `row`.
    pub(super) fn place(&self, row: usize) -> Option<(&HeaderEntry, usize)> {
        Some((&self.entry, *self.places.get(&row)?))
    }
}

impl Change {
    /// Whether it changes nothing.
    fn is_empty(&self) -> bool {
        self.whole.is_none() && self.tokens.is_none() && self.factors.is_none() && self.added.is_none()
    }

    fn new(adapter: usize) -> Change {
        Change { adapter, whole: None, tokens: None, factors: None, added: None }
    }

    /// Checks that it may follow the changes of other adapters.
    pub(super) fn check_after(&self, module: &str, earlier: &[Change]) -> Result<(), AdapterError> {
        let refuse = |what| Err(AdapterError::SavedModule { module: module.to_owned(), what });
        if self.whole.is_some() && !earlier.is_empty() {
            return refuse("merged after another adapter's change of it");
        }
        let Some(tokens) = &self.tokens else { return Ok(()) };
        for other in earlier {
            if other.factors.is_some() {
                return refuse("merged after another adapter's change of it");
            }
            let same = |other: &TokenRows| other.places.keys().any(|row| tokens.places.contains_key(row));
            if other.tokens.as_ref().is_some_and(same) {
                return refuse("merged with another adapter that replaces the same rows");
            }
        }
        Ok(())
    }
}

/// The changes that an adapter's module makes, by canonical names of tensors.
pub(super) fn matched(
    index: usize,
    of: NamedModule<'_>,
    spec: &ModelSpec,
    tensors: &HashMap<&str, &SourceTensor>,
) -> Result<Vec<(String, Change)>, AdapterError> {
    let NamedModule { adapter, name, module } = of;
    let weight = canonical(&format!("{name}.weight"));
    let Some(source) = tensors.get(weight.as_str()) else {
        if let Some(fused) = spec.fused_on_the_hub(&weight) {
            return of_fused(index, of, &fused, tensors);
        }
        let has_factors = module.a.is_some() || module.b.is_some();
        if let Some((tensor, part)) = of_expert(&weight, tensors).filter(|_| has_factors) {
            let mut change = Change::new(index);
            let factors = factors(of, &part.matrix)?;
            change.factors = factors.map(|factors| Factors { rows: Some(part.rows), ..factors });
            return Ok(vec![(tensor, change)]);
        }
        let found = if has_factors { parameter(adapter, name, tensors)? } else { None };
        if let Some((tensor, key, source)) = found {
            let mut change = Change::new(index);
            let declared = spec.declaration(&tensor).map(|(declared, _)| declared.layout);
            let declared = declared.unwrap_or(InFiles::Plain);
            change.factors = Some(of_parameter(of, &key, source, declared)?);
            return Ok(vec![(tensor, change)]);
        }
        // A state that was saved as it is has biases of modules without weights of their own; none is in a checkpoint.
        return Err(AdapterError::NoTensor { module: name.to_owned(), tensor: weight });
    };
    let mut changes = Vec::new();
    let change = of_weight(index, of, source)?;
    if !change.is_empty() {
        changes.push((weight, change));
    }
    if module.whole_bias.is_some() || module.b_bias.is_some() {
        let tensor = canonical(&format!("{name}.bias"));
        let Some(source) = tensors.get(tensor.as_str()) else {
            return Err(AdapterError::NoBias { module: name.to_owned() });
        };
        changes.push((tensor, of_bias(index, of, source)?));
    }
    Ok(changes)
}

/// What a module that is several parts does to each of them.
fn of_fused(
    index: usize,
    of: NamedModule<'_>,
    fused: &FusedTensor,
    tensors: &HashMap<&str, &SourceTensor>,
) -> Result<Vec<(String, Change)>, AdapterError> {
    let NamedModule { adapter, name, module } = of;
    if module.whole_bias.is_some() || module.b_bias.is_some() {
        return Err(AdapterError::NoBias { module: name.to_owned() });
    }
    if adapter.config.mlx {
        return Err(AdapterError::Option {
            option: "lora_parameters.keys".to_owned(),
            value: name.to_owned(),
            supported: "adapters of PEFT on projections that files have in one tensor",
        });
    }
    let rows = fused.shape().first().copied().unwrap_or(0);
    let mut changes = Vec::new();
    for part in &fused.parts {
        let no_tensor = || AdapterError::NoTensor { module: name.to_owned(), tensor: part.name.clone() };
        let source = *tensors.get(part.name.as_str()).ok_or_else(no_tensor)?;
        let module = cut(module, rows, &part.rows)?;
        let change = of_weight(index, NamedModule { adapter, name, module: &module }, source)?;
        if !change.is_empty() {
            changes.push((part.name.clone(), change));
        }
    }
    Ok(changes)
}

fn of_bias(
    index: usize,
    NamedModule { adapter, name, module }: NamedModule<'_>,
    source: &SourceTensor,
) -> Result<Change, AdapterError> {
    let mut change = Change::new(index);
    if let Some(whole) = &module.whole_bias {
        check_shape(whole, &source.shape)?;
        if !adapter.config.biases && !adapter.config.saves(name) {
            return Err(AdapterError::UnknownTensor { name: whole.name.clone() });
        }
        unweighted(adapter, name)?;
        change.whole = Some(whole.clone());
    }
    if let Some(bias) = &module.b_bias {
        check_shape(bias, &source.shape)?;
        let (_, scale) = adapter.config.rank_and_scale(name);
        change.added = Some((bias.clone(), scale * adapter.weight()));
    }
    Ok(change)
}

fn unweighted(adapter: &Adapter, module: &str) -> Result<(), AdapterError> {
    let what = "weighted with anything but 1";
    match adapter.weight() == 1.0 {
        true => Ok(()),
        false => Err(AdapterError::SavedModule { module: module.to_owned(), what }),
    }
}

fn of_weight(index: usize, of: NamedModule<'_>, source: &SourceTensor) -> Result<Change, AdapterError> {
    let NamedModule { adapter, name, module } = of;
    let mut change = Change::new(index);
    let conflict = |first, second| AdapterError::Conflict { module: name.to_owned(), first, second };
    if let (Some(whole), Some(saved)) = (&module.whole, &module.saved) {
        let io = |source| AdapterError::Io { path: adapter.path.clone(), source };
        let alike = whole.dtype == saved.dtype && whole.shape == saved.shape;
        if !alike || !equal_bytes(adapter, whole, saved).map_err(io)? {
            return Err(conflict("weight", "modules_to_save.weight with other values"));
        }
    }
    if let Some(whole) = module.table() {
        check_shape(whole, &source.shape)?;
        let saved = module.a.is_none();
        let table = matches!(source.role, Role::Embedding | Role::Head);
        if saved && !table && !adapter.config.saves(name) {
            return Err(AdapterError::UnknownTensor { name: whole.name.clone() });
        }
        if saved {
            unweighted(adapter, name)?;
        }
        // The tensor of a table whose rows were added is the adapter's already.
        change.whole = Some(whole.clone()).filter(|whole| source.source_name != whole.name);
    }
    if let Some(tokens) = &module.tokens {
        if module.a.is_some() {
            return Err(conflict("trainable_tokens_delta", "factors"));
        }
        unweighted(adapter, name)?;
        let rows = adapter.config.token_rows(name, source.name == EMBEDDING);
        let rows = rows.ok_or_else(|| AdapterError::UnknownTensor { name: tokens.name.clone() })?;
        check_shape(tokens, &[rows.len(), source.cols()])?;
        let places: HashMap<usize, usize> =
            rows.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        let beyond = rows.iter().copied().find(|row| *row >= source.rows());
        if beyond.is_some() || places.len() != rows.len() {
            let option = "trainable_token_indices".to_owned();
            let expected = "token numbers of the table, each once";
            return Err(AdapterError::Invalid { option, value: format!("{rows:?}"), expected });
        }
        change.tokens = Some(TokenRows { entry: tokens.clone(), places });
    }
    change.factors = factors(of, source)?;
    Ok(change)
}

fn factors(of: NamedModule<'_>, source: &SourceTensor) -> Result<Option<Factors>, AdapterError> {
    let NamedModule { adapter, name, module } = of;
    let Some((a, b)) = both(name, module)? else { return Ok(None) };
    if let Some(why) = adapter.config.targets.leave_out(name) {
        return Err(AdapterError::Untargeted { module: name.to_owned(), why });
    }
    let &[rows, cols] = source.shape.as_slice() else {
        return Err(AdapterError::Shape { name: a.name, actual: source.shape.clone(), expected: vec![0, 0] });
    };
    let key = format!("{name}.weight");
    let key = if adapter.config.targets.names_parameter(&key) { key.as_str() } else { name };
    let (rank, scale) = adapter.config.rank_and_scale(key);
    let mut rank = usize::try_from(rank).unwrap_or(usize::MAX);
    let table = source.role == Role::Embedding;
    let (layout, a_shape, b_shape) = match (adapter.config.mlx, module.embedding) {
        (true, _) => {
            // The rank is in the shapes alone.
            rank = a.shape.get(1).copied().unwrap_or(0);
            match table {
                true => (Layout::Direct, [rows, rank], [rank, cols]),
                false => (Layout::Transposed, [cols, rank], [rank, rows]),
            }
        }
        (false, true) => (Layout::Embedding, [rank, rows], [cols, rank]),
        (false, false) => (Layout::Linear, [rank, cols], [rows, rank]),
    };
    check_shape(&a, &a_shape)?;
    check_shape(&b, &b_shape)?;
    check_magnitude(of, rows)?;
    let (magnitude, scale) = (module.magnitude.clone(), scale * adapter.weight());
    Ok(Some(Factors { a, b, magnitude, rank, scale, layout, rows: None }))
}

fn check_magnitude(
    NamedModule { adapter, name, module }: NamedModule<'_>,
    rows: usize,
) -> Result<(), AdapterError> {
    match (&module.magnitude, adapter.config.dora) {
        (Some(_), false) => Err(AdapterError::Conflict {
            module: name.to_owned(),
            first: "lora_magnitude_vector",
            second: "use_dora false",
        }),
        (_, true) if module.embedding => Err(AdapterError::Option {
            option: "use_dora".to_owned(),
            value: format!("true on the embedding {name}"),
            supported: "DoRA on linear layers",
        }),
        (None, true) => {
            Err(AdapterError::Incomplete { module: name.to_owned(), missing: "lora_magnitude_vector" })
        }
        (Some(magnitude), true) => {
            let elements: usize = magnitude.shape.iter().product();
            if elements == rows { Ok(()) } else { check_shape(magnitude, &[rows]) }
        }
        (None, false) => Ok(()),
    }
}

/// A projection that the configuration names as a target has factors.
pub(super) fn check_targets(adapter: &Adapter, tensors: &[SourceTensor]) -> Result<(), AdapterError> {
    let trained: Vec<String> =
        adapter.modules.keys().map(|name| canonical(&format!("{name}.weight"))).collect();
    let has = |name: &str| trained.iter().any(|trained| trained == name);
    let projection = |tensor: &&SourceTensor| {
        use Role as R;
        let roles = [R::Query, R::Key, R::Value, R::Output, R::Gate, R::Up, R::Down];
        roles.contains(&tensor.role) && tensor.shape.len() == 2
    };
    for tensor in tensors.iter().filter(projection) {
        let module = tensor.source_name.strip_suffix(".weight").unwrap_or(&tensor.source_name);
        let canonical = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        // A projection that stands in a tensor with others is trained with them.
        let is_trained = has(&tensor.name) || has(&crate::names::canonical(&tensor.source_name));
        if adapter.config.demands(module, canonical) && !is_trained {
            return Err(AdapterError::Untrained { module: module.to_owned() });
        }
    }
    // Parameters of experts that are trained by themselves.
    for tensor in tensors.iter().filter(|tensor| tensor.role.is_used() && tensor.shape.len() == 3) {
        let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
        let wraps = |name: &String| {
            let inner = name.trim_end_matches(".base_layer");
            canonical(inner) == module || canonical(&format!("{inner}.x")) == format!("{module}.x")
        };
        let wanted = adapter.config.targets.names_parameter(&tensor.name);
        if wanted && !adapter.modules.keys().any(wraps) {
            return Err(AdapterError::Untrained { module: tensor.name.clone() });
        }
    }
    Ok(())
}
