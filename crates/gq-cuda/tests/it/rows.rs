//! Rows of tables in planes, against the codec's decoder.

use super::assert_same;
use crate::device::Interpreter;
use crate::product::Stored;
use gq_codec::Decoder;
use gq_cuda::{PlaneCode, PlaneRows};
use gq_tensor::{CodedRows, Encoding, Grid, Isa, MatrixShape, Rounding, Storage};

#[test]
fn rows_of_every_encoding() {
    let (rows, cols) = (5, 256);
    for encoding in Encoding::all() {
        let Some((code, form)) = PlaneCode::of(encoding) else { continue };
        let stored = Stored::random(encoding, rows, cols, 17);
        let payload = [stored.codes.clone(), stored.scales.clone()].concat();
        let shape = MatrixShape::new(rows, cols);
        let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
        let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
        let ids = [4u32, 0, 2];
        let mut defined = Vec::new();
        for id in ids {
            let mut row = vec![0.0; cols];
            decoder.decode_row(Isa::Scalar, &matrix, id as usize, &mut row);
            defined.extend(row);
        }
        let rounding = match encoding {
            Encoding::Grid(Grid { rounding, .. }) => rounding,
            _ => Rounding::F32,
        };
        let mut device = Interpreter::default();
        let y = device.allocate(4 * ids.len() * cols);
        let table = PlaneRows {
            code,
            form,
            rounding,
            codes: device.upload(&stored.device_codes()),
            scales: device.upload(&stored.scales),
            ids: device.upload_u32(&ids),
            y,
            rows,
            cols,
            tokens: ids.len(),
        };
        device.run(table.launch());
        assert_same(&device.read_f32(y), &defined, &encoding.name());
    }
}
