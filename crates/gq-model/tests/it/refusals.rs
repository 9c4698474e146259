//! What a model refuses, and with which facts.

use crate::fixtures::{exact, tiny_model};
use gq_model::{LogitRows, Model, ModelError};
use gq_tensor::Isa;
use gq_text::{ChatError, ChatTemplate, ModelTexts, Tokenizer, TokenizerError};

fn model() -> Model {
    tiny_model("llama", exact(Isa::detect()))
}

#[test]
fn tokens_rows_and_caches_out_of_range() {
    let model = model();
    let mut cache = model.new_cache(4);
    let mut refused = |tokens: &[u32], rows: LogitRows| {
        let error = model.forward(tokens, &mut cache, rows, &mut Vec::new()).unwrap_err();
        assert!(cache.is_empty(), "a refusal leaves the cache alone");
        error
    };
    assert_eq!(refused(&[], LogitRows::All), ModelError::NoTokens);
    assert_eq!(refused(&[1, 288], LogitRows::All), ModelError::Token { token: 288, index: 1, limit: 288 });
    assert_eq!(refused(&[1; 5], LogitRows::All), ModelError::CacheFull { needed: 5, limit: 4 });
    assert_eq!(refused(&[1; 3], LogitRows::Range(1..4)), ModelError::Rows { rows: 1..4, actual: 3 });
    let mut foreign = tiny_model("gemma3", exact(Isa::detect())).new_cache(4);
    let error = model.forward(&[1], &mut foreign, LogitRows::All, &mut Vec::new()).unwrap_err();
    assert_eq!(error, ModelError::ForeignCache);
}

#[test]
fn text_without_a_tokenizer() {
    let model = model();
    let error = Tokenizer::new(model.texts(), model.spec()).unwrap_err();
    assert!(matches!(error, TokenizerError::Missing));
    assert!(matches!(ChatTemplate::new(model.texts()), Err(ChatError::Missing)));
    let texts = ModelTexts { tokenizer: Some("{}".to_owned()), ..ModelTexts::default() };
    let error = Tokenizer::new(&texts, model.spec()).unwrap_err();
    assert!(matches!(error, TokenizerError::Unreadable(_)));
}
