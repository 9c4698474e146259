//! Plans: everything accounted for, for the stated reason, in the stated memory.

use crate::support::{TWO_THREADS, bf16, plan, policy, testdata, write_llama};
use gq_checkpoint::Checkpoint;
use gq_convert::{Estimate, LeftOut, Plan, PlanError, Policy, PolicyError, Resources};

const TINY: [&str; 8] = [
    "tiny/llama",
    "tiny/llama3",
    "tiny/gemma3",
    "tiny/gemma4-e2b",
    "tiny/gemma4-e4b",
    "tiny/gemma4-moe",
    "tiny/gemma4-dense",
    "tiny/gemma4-vision",
];

#[test]
fn every_byte_of_the_source_is_accounted_for() {
    for name in TINY {
        let checkpoint = testdata(name);
        let plan = plan(&checkpoint, &policy("tq4", &[]));
        let kept: u64 = plan.steps.iter().map(|step| step.source_bytes).sum();
        let dropped: u64 = plan.dropped.iter().map(|dropped| dropped.source_bytes).sum();
        let source: u64 = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
        assert_eq!((kept + dropped, plan.source_bytes), (source, source), "{name}");
        assert_eq!(plan.steps.len() + plan.dropped.len(), checkpoint.tensors().len(), "{name}");
        assert!(plan.steps.iter().all(|step| !step.reason.is_empty()), "{name}");
        // A plan is a value that survives being written down.
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{name}");
    }
}

#[test]
fn each_role_gets_its_encoding_and_reason() {
    let e2b = plan(&testdata("tiny/gemma4-e2b"), &policy("tq3", &[]));
    let moe = plan(&testdata("tiny/gemma4-moe"), &policy("tq3", &[]));
    let of = |plan: &Plan, role: &str| {
        let step = plan.steps.iter().find(|step| step.role == role);
        let step = step.unwrap_or_else(|| panic!("no {role}"));
        (step.encoding.name(), step.reason.clone())
    };
    let expect = |plan: &Plan, role: &str, encoding: &str, reason: &str| {
        assert_eq!(of(plan, role), (encoding.to_owned(), reason.to_owned()), "{role}");
    };
    expect(&e2b, "query", "tq3", "body");
    expect(&e2b, "embedding", "tq8", "embedding, also the head");
    expect(&e2b, "per_layer_table", "tq8", "per-layer embedding table");
    expect(&e2b, "per_layer_gate", "tq8", "per-layer projection");
    expect(&e2b, "norm", "bf16", "kept exactly: norm");
    expect(&moe, "expert_gate_up", "tq3", "body");
    expect(&moe, "router", "bf16", "kept exactly: router");
    let tower = plan(&testdata("tiny/gemma4-vision"), &policy("tq3", &[]));
    assert!(tower.dropped.iter().any(|dropped| dropped.reason == "vision or audio tower"));
}

/// Two of the E2B variant's five layers read other layers' keys and values.
#[test]
fn what_is_not_stored_is_summed_up() {
    let checkpoint = testdata("tiny/gemma4-e2b");
    let plan = plan(&checkpoint, &policy("tq4", &[]));
    let shared = |name: &str| name.contains("layers.3.self_attn.") || name.contains("layers.4.self_attn.");
    let is_kv = |name: &str| ["k_proj", "v_proj", "k_norm"].iter().any(|part| name.contains(part));
    let tensors = checkpoint.tensors().iter().filter(|t| shared(&t.name) && is_kv(&t.name));
    let (count, bytes) = tensors.fold((0, 0), |(count, bytes), t| (count + 1, bytes + t.bytes));
    assert!(bytes > 0);
    let saved = LeftOut {
        reason: "keys and values are another layer's".to_owned(),
        tensors: count,
        source_bytes: bytes,
    };
    assert_eq!(plan.left_out, [saved]);
}

#[test]
fn overrides_leave_alone_what_the_graph_does_not_use() {
    let checkpoint = testdata("tiny/gemma4-vision");
    let all = policy("tq4", &[("proj", "tq6")]);
    let dropped = |plan: &Plan| plan.dropped.iter().map(|d| d.tensor.clone()).collect::<Vec<_>>();
    let (plain, ruled) = (plan(&checkpoint, &policy("tq4", &[])), plan(&checkpoint, &all));
    assert_eq!(dropped(&plain), dropped(&ruled));
    let kept = plan(&checkpoint, &Policy { keep_towers: true, ..all });
    let towers: Vec<_> = kept.steps.iter().filter(|step| step.role == "tower").collect();
    assert!(!towers.is_empty() && towers.iter().all(|step| step.encoding.is_exact() && !step.body));
    let none = gq_convert::plan(&checkpoint, &policy("tq4", &[("vision", "tq6")]), TWO_THREADS);
    assert!(matches!(none, Err(PlanError::Policy(PolicyError::Unmatched { .. }))));
}

#[test]
fn the_time_is_estimated_where_it_can_be() {
    let level = gq_tensor::Isa::detect();
    let of =
        |encoding: &str| Estimate::new(&plan(&testdata("tiny/gemma4-moe"), &policy(encoding, &[])), level);
    let (scalar, trellis) = (of("tq4").unwrap().seconds, of("tt4").unwrap().seconds);
    assert!(scalar > 0.0 && trellis > scalar, "{scalar} {trellis}");
    assert!(of("tqp3").is_none());
}

#[test]
fn the_last_override_wins_and_an_idle_one_is_refused() {
    let checkpoint = testdata("tiny/llama");
    let rules = [("proj", "tq6"), ("down_proj", "tq2-g32"), (r"layers\.0\.mlp\.up", "exact")];
    let plan = plan(&checkpoint, &policy("tq4", &rules));
    let encoding = |part: &str| {
        let step = plan.steps.iter().find(|step| step.tensor.contains(part)).unwrap();
        (step.encoding.name(), step.reason.clone())
    };
    assert_eq!(encoding("q_proj"), ("tq6".to_owned(), "override \"proj\"".to_owned()));
    assert_eq!(encoding("down_proj").0, "tq2-g32");
    assert_eq!(encoding("layers.0.mlp.up_proj").0, "bf16");
    let refusal = |rule: (&str, &str)| {
        gq_convert::plan(&checkpoint, &policy("tq4", &[rule]), TWO_THREADS).unwrap_err().to_string()
    };
    assert!(refusal(("no_such", "tq6")).contains("matches none"));
    assert!(refusal(("(", "tq6")).contains("override \"(\""));
    assert!(refusal(("norm", "f32")).contains("is BF16 in the source"));
}

#[test]
fn widths_that_cannot_be_coded_are_kept_and_said() {
    let dir = tempfile::tempdir().unwrap();
    write_llama(dir.path(), (96, 100), |_, n| bf16(n, 1), &[]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let plan = plan(&checkpoint, &policy("tq4-g64", &[]));
    let reason = |part: &str| {
        let step = plan.steps.iter().find(|step| step.tensor.contains(part)).unwrap();
        (step.encoding.name(), step.reason.clone())
    };
    let kept = |why: &str| ("bf16".to_owned(), format!("kept exactly: {why}"));
    assert_eq!(reason("down_proj"), kept("width 100 is not a multiple of 64"));
    assert_eq!(reason("up_proj"), kept("width 96 is not a multiple of 64"));
}

#[test]
fn memory_is_promised_or_refused() {
    let checkpoint = testdata("demo");
    let with = |max_memory, threads| {
        gq_convert::plan(&checkpoint, &policy("tq4", &[]), Resources { threads, max_memory })
    };
    let free = with(None, 2).unwrap().memory;
    assert!(with(None, 8).unwrap().memory.peak > free.peak);
    let tight = with(Some(free.peak - 1), 2).unwrap().memory;
    assert!(tight.peak < free.peak && tight.block < free.block);
    match with(Some(1 << 20), 2) {
        Err(PlanError::Memory { limit, actual }) => assert!(limit == 1 << 20 && actual > limit),
        other => panic!("{other:?}"),
    }
    let unmatched = gq_convert::plan(&checkpoint, &policy("tq4", &[("x{9}", "tq2")]), TWO_THREADS);
    assert!(matches!(unmatched, Err(PlanError::Policy(PolicyError::Unmatched { .. }))));
}
