//! A model that answers in Harmony's format: what it thinks is shown apart, and is no content of later prompts.

use crate::adapters::{Tensor, save, write};
use crate::chat::{on_terminal, ready};
use crate::run::Gq;
use serde_json::{Value, json};

/// Tokens by id. Each is followed by that of `NEXT`.
const TOKENS: [&str; 12] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "analysis",
    "hm",
    "Paris",
    "assistant",
    "user",
    "Q",
    "<unk>",
];
/// After `assistant`: a channel, analysis, a message, hm, its end, Paris, and the end.
const NEXT: [usize; 12] = [4, 5, 6, 7, 4, 2, 3, 4, 1, 4, 4, 4];
const WIDTH: usize = 16;

/// As the published one: it refuses a turn whose content has what was thought, and leaves out what was. Its turns end as
/// messages do, after which an answer goes on.
const TEMPLATE: &str = "{%- for m in messages -%}
{%- if 'hm' in m.content or 'analysis' in m.content -%}{{ raise_exception('raw analysis') }}{%- endif -%}
{%- if m.content == 'Paris' and 'hm' != m.thinking -%}{{ raise_exception('no thinking') }}{%- endif -%}
<|start|> {{ m.role }} <|message|> {{ m.content }} <|end|> {% endfor -%}
<|start|> assistant";

/// Llama whose layer does nothing and whose head maps each token to the next one.
pub fn model(gq: &Gq) -> String {
    let dir = gq.path("harmony");
    std::fs::create_dir_all(&dir).unwrap();
    let matrix = |name: &str, rows: usize, one: &dyn Fn(usize, usize) -> bool| -> Tensor {
        let values = (0..rows * WIDTH).map(|at| if one(at / WIDTH, at % WIDTH) { 1f32 } else { 0.0 });
        (name.to_owned(), "F32".to_owned(), vec![rows, WIDTH], values.flat_map(f32::to_le_bytes).collect())
    };
    let ones = |name: &str| -> Tensor {
        (
            name.to_owned(),
            "F32".to_owned(),
            vec![WIDTH],
            [1f32; WIDTH].iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    };
    let rows = TOKENS.len();
    let mut tensors = vec![
        matrix("model.embed_tokens.weight", rows, &|token, at| token == at),
        matrix("lm_head.weight", rows, &|next, at| at < rows && NEXT[at] == next),
        ones("model.norm.weight"),
        ones("model.layers.0.input_layernorm.weight"),
        ones("model.layers.0.post_attention_layernorm.weight"),
    ];
    for part in ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"]
    {
        tensors.push(matrix(&format!("model.layers.0.{part}_proj.weight"), WIDTH, &|_, _| false));
    }
    save(&tensors, &dir.join("model.safetensors"));
    write(
        &dir.join("config.json"),
        &json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH,
                "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
                "num_key_value_heads": 2, "vocab_size": rows, "max_position_embeddings": 512, "bos_token_id": null,
                "eos_token_id": 4, "rms_norm_eps": 1e-6}),
    );
    let added = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let vocab: serde_json::Map<String, Value> =
        TOKENS.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    write(
        &dir.join("tokenizer.json"),
        &json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
                "added_tokens": TOKENS[..5].iter().enumerate().map(added).collect::<Vec<_>>(),
                "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
                "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}),
    );
    std::fs::write(dir.join("chat_template.jinja"), TEMPLATE).unwrap();
    dir.to_str().unwrap().to_owned()
}

#[test]
fn what_was_thought_is_no_content() {
    let gq = Gq::new();
    let model = model(&gq);
    let answer = gq.json(&["run", &model, "-p", "Q", "--temp", "0"]);
    assert_eq!((&answer["text"], &answer["thinking"]), (&json!("Paris"), &json!("hm")), "{answer}");
    assert_eq!(answer["tokens"], json!([1, 5, 2, 6, 3, 7]));
    assert_eq!(gq.ok(&["run", &model, "-p", "Q", "--temp", "0"]), "Paris\n");
    // Text that is gone on with is the model's own business.
    let raw = gq.json(&["run", &model, "-p", "assistant", "--raw", "--temp", "0"]);
    assert_eq!((&raw["text"], &raw["thinking"]), (&json!("analysis hm Paris"), &Value::Null), "{raw}");
}

#[test]
fn a_chat_goes_on_without_what_was_thought() {
    let gq = Gq::new();
    let mut chat = on_terminal(&gq, &["run", &model(&gq), "--temp", "0"]);
    chat.exp_string("harmony: type a message").unwrap();
    ready(&mut chat);
    for prompt in [7, 17] {
        chat.send_line("Q").unwrap();
        chat.exp_string("[thinking]\r\nhm\r\n[answer]\r\nParis").unwrap();
        ready(&mut chat);
        chat.send_line("/stats").unwrap();
        chat.exp_string(&format!("prompt     {prompt} tokens")).unwrap();
        ready(&mut chat);
    }
    chat.send_line("/quit").unwrap();
    chat.exp_eof().unwrap();
}
