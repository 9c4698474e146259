//! Rounding to other programs' types by what columns count.

use crate::support::testdata;
use gq_codec::GroupCode;
use gq_convert::{BlockCoder, GroupCoder, Grouped, Importances};
use gq_tensor::Isa;
use gq_tensor::ggml::{GgmlType, decode_blocks};

const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

#[test]
fn columns_that_count_more_are_closer() {
    let checkpoint = testdata("tiny/llama");
    let tensor = checkpoint.tensor(DOWN).unwrap();
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let mut weights = vec![0.0; rows * cols];
    checkpoint.read_rows_f32(tensor, 0..rows, &mut weights).unwrap();
    // Every eighth column has inputs a hundred times as large.
    let squares: Vec<f32> = (0..cols).map(|col| if col % 8 == 0 { 1e4 } else { 1.0 }).collect();
    let importances = Importances::from([(DOWN.to_owned(), vec![squares.clone()])]);
    let level = Isa::detect();
    let error = |decoded: &[f32]| -> f64 {
        let squared = weights.iter().zip(decoded).map(|(w, q)| f64::from(w - q).powi(2));
        squared.zip(squares.iter().cycle()).map(|(error, &square)| error * f64::from(square)).sum()
    };
    let blocks = |coder: &BlockCoder<'_>| {
        let mut bytes = vec![0; rows * GgmlType::Q4_0.row_bytes(cols).unwrap()];
        assert!(
            coder
                .round(DOWN, GgmlType::Q4_0, std::slice::from_ref(&(0..rows)), &weights, &mut bytes)
                .unwrap()
        );
        let mut decoded = vec![0.0; weights.len()];
        decode_blocks(GgmlType::Q4_0, &bytes, &mut decoded);
        error(&decoded)
    };
    let plain = BlockCoder::new(&checkpoint, None, level);
    let by = BlockCoder::new(&checkpoint, None, level).with_importances(&importances);
    assert!(blocks(&by) < 0.7 * blocks(&plain), "{} {}", blocks(&by), blocks(&plain));
    // What types lose is counted in the same way.
    let lost = |coder: &BlockCoder<'_>| {
        let errors = coder.errors(DOWN).unwrap();
        errors.iter().find(|error| error.kind == GgmlType::Q4_0).unwrap().error
    };
    assert!(lost(&by) < 0.7 * lost(&plain), "{} {}", lost(&by), lost(&plain));

    let code = GroupCode::new(4, 32, true).unwrap();
    let groups = |coder: &GroupCoder<'_>| {
        let mut decoded = vec![0.0; weights.len()];
        code.decode(&coder.round(DOWN, code, &weights).unwrap(), &mut decoded);
        let errors = coder.errors(DOWN, &[code]).unwrap();
        assert_eq!(
            errors.iter().map(|error| error.kind).collect::<Vec<_>>(),
            [Grouped::Codes(code), Grouped::Whole]
        );
        error(&decoded)
    };
    let plain = GroupCoder::new(&checkpoint, None, level);
    let by = GroupCoder::new(&checkpoint, None, level).with_importances(&importances);
    assert!(groups(&by) < 0.7 * groups(&plain));
}
