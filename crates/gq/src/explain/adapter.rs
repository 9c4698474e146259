//! Failures of opening and matching adapters.

use super::sentence;
use crate::failure::{Exit, Failure};
use gq_checkpoint::AdapterError;

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Failure {
        use AdapterError as E;
        let error = match error {
            E::Text(error) => return (*error).into(),
            other => other,
        };
        let message = sentence(&error);
        let bad = |code, place: &dyn std::fmt::Display| Failure::new(Exit::Input, code, &message).at(place);
        match &error {
            E::Io { path, source } => Failure::io(path, source),
            E::NoFile { dir, file } => {
                bad("adapter.no_file", &dir.display()).limit(file).actual("no such file")
            }
            E::TooLong { path, actual, limit } => {
                bad("adapter.too_long", &path.display()).limit(limit).actual(actual)
            }
            E::Json { path, .. } => bad("adapter.json", &path.display()).limit("a JSON object"),
            E::Option { option, value, supported } => {
                bad("adapter.option", option).limit(supported).actual(value)
            }
            E::Pattern { option, pattern, .. } => bad("adapter.pattern", option).actual(pattern),
            E::Weight { adapter, actual } => bad("adapter.weight", adapter).limit("finite").actual(actual),
            E::Header { path, source } => {
                super::checkpoint::header(bad("safetensors", &path.display()), source)
            }
            E::UnknownTensor { name } => bad("adapter.tensor_unknown", name),
            E::Incomplete { module, missing } => {
                bad("adapter.incomplete", module).limit(missing).actual("missing")
            }
            E::Conflict { module, first, second } => {
                bad("adapter.conflict", module).limit(first).actual(second)
            }
            E::Untrained { module } => bad("adapter.incomplete", module).actual("missing"),
            E::NoTensor { module, tensor } => {
                bad("adapter.tensor_missing", module).limit(tensor).actual("missing")
            }
            E::Shape { name, actual, expected } => {
                bad("adapter.shape", name).limit(format!("{expected:?}")).actual(format!("{actual:?}"))
            }
            E::NotFloat { name, actual } => {
                bad("adapter.not_float", name).limit("a floating point dtype").actual(actual)
            }
            E::SavedModule { module, what } => bad("adapter.saved_module", module).actual(what),
            E::StandIn { path, what } => super::checkpoint::stand_in(path, what, &message),
            E::Pickle { path } => {
                bad("adapter.pickle", &path.display()).limit("adapter_model.safetensors").actual("a pickle")
            }
            E::Invalid { option, value, expected } => {
                bad("adapter.invalid", option).limit(expected).actual(value)
            }
            E::Empty { name } => bad("adapter.empty", name).limit("elements").actual("none"),
            E::Untargeted { module, why } => bad("adapter.untargeted", module).actual(why),
            E::NoBias { module } => bad("adapter.no_bias", module).limit("a bias").actual("none"),
            E::HalfResized { module, rows, other } => bad("adapter.half_resized", module)
                .limit(format!("{other} with {rows} rows"))
                .actual("missing"),
            E::PerLayerRows { module, actual, limit } => {
                bad("adapter.per_layer_rows", module).limit(limit).actual(actual)
            }
            E::AmbiguousOrder { module } => bad("adapter.ambiguous", module),
            E::TextsDisagree { first, second, what } => {
                bad("adapter.texts_disagree", what).limit(first).actual(second)
            }
            E::TokenBeyond { from, token, id, rows } => {
                bad("adapter.token_beyond", from).limit(rows).actual(format!("{token} {id}"))
            }
            E::AddedToken { from, token, id } => {
                bad("adapter.added_token", from).actual(format!("{token} {id}"))
            }
            E::Text(_) => Failure::new(Exit::Input, "adapter.text", &message), // returned above
            E::Untied { module, other } => bad("adapter.untied", module).limit(other),
        }
    }
}
