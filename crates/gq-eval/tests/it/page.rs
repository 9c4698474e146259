//! The page: complete, without outside help, and safe whatever models are called.

use crate::fixtures::{Made, model_logit, reference_logit};
use gq_eval::{
    Computed, EvalReport, Names, ReferenceRun, Sizes, TextOptions, Windows, compare_on_text, html,
};

fn report(name: &str, scale: f32) -> EvalReport {
    let tokens: Vec<u32> = (0..200).map(|i| (i * i + i) % 50).collect();
    let windows = Windows::new(&tokens, 40, None, None).unwrap();
    let mut model = Made::new(50, |p, t, e| {
        reference_logit(p, t, e) + scale * (model_logit(p, t, e) - reference_logit(p, t, e))
    });
    let mut reference = Made::new(50, reference_logit);
    let mut again = Made::new(50, |p, t, e| reference_logit(p, t, e) + if e == 3 { 0.01 } else { 0.0 });
    let run = ReferenceRun { logits: &mut reference, again: Some(("a hair added", &mut again)) };
    let sizes =
        Sizes { file_bytes: 5_000_000, weights: 8_000_000, body_bytes: 3_000_000, body_weights: 6_000_000 };
    let report =
        compare_on_text(&mut model, run, &windows, sizes, TextOptions::default(), &mut |_, _| {}).unwrap();
    let [model, reference, text] = [name, "the <original>", "a text"].map(str::to_owned);
    EvalReport { names: Names { model, reference, text }, ..report }
}

/// Every element that is opened is closed, in order.
fn check_balance(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = &page[page.find("</style>").unwrap()..];
    for tag in body.split('<').skip(2).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        match tag {
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "{tag}"),
            _ if tag.ends_with('/') || ["br", "meta"].contains(&name) => {}
            _ => open.push(name),
        }
    }
    // The head was opened before the style.
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn several_models_on_one_page() {
    let reports = [report("small", 1.0), report("large", 0.2)];
    let page = html::render(&reports);
    assert_eq!(page, html::render(&reports));
    for part in
        ["Evaluation of 2 models", "small", "large", "the &lt;original&gt;", "a hair added", "noise floor"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<figure>").count(), 4, "size, histogram, position, window");
    assert!(!page.contains("NaN") && !page.contains("inf"), "every figure is a number");
    for outside in ["http", "<script", "<link", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let body = page.replace("</head>", "").replace("</body></html>", "");
    check_balance(&body.replace("<body>", ""));
}

#[test]
fn one_model_has_no_size_plot_and_no_name_can_break_out() {
    let page = html::render(&[report("\"><script>alert(1)</script>\u{1b}[2J", 1.0)]);
    assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    assert!(page.contains("&quot;&gt;&lt;script&gt;"));
    assert_eq!(page.matches("<figure>").count(), 3);
}

#[test]
fn equal_models_and_no_models_have_a_page_too() {
    let page = html::render(&[report("the same", 0.0)]);
    assert!(page.contains("the same") && !page.contains("NaN"));
    assert!(html::render(&[]).contains("Evaluation of 0 models"));
    // What computed it is said where it is known.
    assert!(!page.contains("computed by"));
    let computed = Computed {
        program: "gq 9.9".to_owned(),
        activations: "int8".to_owned(),
        model_sha256: "0123abcd".to_owned(),
        device: String::new(),
    };
    let page = html::render(&[EvalReport { computed, ..report("m", 0.0) }]);
    assert!(page.contains("m: computed by gq 9.9 with int8 activations, sha256 0123abcd."), "{page}");
}
