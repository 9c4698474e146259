//! The driver, where there is one; the answer where there is none.

use super::{assert_same, bell};
use gq_cuda::{Device, Gpu, GpuError, Parts, PlaneCode, PlaneProduct, RmsNorm, define, layout};
use gq_tensor::Encoding;

#[test]
fn a_gpu_has_the_defined_bits_or_there_is_a_clear_answer() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("no GPU here, nothing was launched: {error}");
            let known =
                matches!(error, GpuError::NoDriver | GpuError::OldDriver { .. } | GpuError::NoDevice { .. });
            assert!(known, "{error}");
            return;
        }
    };
    defined_bits(gpu);
}

/// A norm and a product, launched by the driver.
pub(crate) fn defined_bits(mut gpu: Gpu) {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let floats = |bytes: Vec<u8>| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let x = bell(1, 1000);
    let (at_x, y) = (gpu.upload(&bytes(&x)).unwrap(), gpu.allocate(4000).unwrap());
    let norm = RmsNorm {
        x: Parts::one(at_x.span()),
        residual: None,
        weight: None,
        y: y.span(),
        rows: 1,
        width: 1000,
        eps: 1e-5,
    };
    gpu.launch(&norm.launch().unwrap()).unwrap();
    assert_same(&floats(gpu.read(&y).unwrap()), &define::rms_norm(&x, None, 1e-5), "norm");

    let (rows, cols) = (5, 1024);
    let (code, form) = PlaneCode::of(Encoding::from_name("tq4").unwrap()).unwrap();
    let codes: Vec<u8> = super::noise(2, rows * cols / 2).into_iter().map(|word| word as u8).collect();
    let device_codes = layout::planes_upload(4, rows, cols, &codes);
    let scales: Vec<u8> = [half::f16::from_f32(0.7).to_le_bytes(); 5].concat();
    let (values, steps) = define::quantize(&bell(3, cols));
    let signed: Vec<u8> = values.iter().map(|value| *value as u8).collect();
    let buffers = [&device_codes, &scales, &signed, &bytes(&steps)].map(|bytes| gpu.upload(bytes).unwrap());
    let y = gpu.allocate(4 * rows).unwrap();
    let product = PlaneProduct {
        code,
        form,
        codes: buffers[0].span(),
        scales: buffers[1].span(),
        values: buffers[2].span(),
        steps: buffers[3].span(),
        y: y.span(),
        rows,
        cols,
        tokens: 1,
        experts: None,
    };
    gpu.launch(&product.launch().unwrap()).unwrap();
    let defined: Vec<f32> = (0..rows)
        .map(|row| {
            let of = |col| layout::plane_code(4, rows, cols, &device_codes, row, col);
            let levels: Vec<i32> = (0..cols).map(|col| define::plane_level(code, of(col))).collect();
            define::plane_product(
                code,
                form,
                &scales,
                row,
                &levels,
                define::Quantized { values: &values, steps: &steps },
                1,
            )
        })
        .collect();
    assert_same(&floats(gpu.read(&y).unwrap()), &defined, "tq4");
}

#[test]
fn answers_are_sentences() {
    assert_eq!(
        GpuError::OldDriver { actual: 11080 }.to_string(),
        "the NVIDIA driver is for CUDA 11.8, the kernels need one for CUDA 12.4 or newer"
    );
    assert_eq!(
        GpuError::OutOfMemory { asked: 100, free: 5, total: 50 }.to_string(),
        "the GPU has no room for 100 bytes: 5 of 50 are free"
    );
    assert_eq!(
        GpuError::NoDevice { asked: 2, count: 1 }.to_string(),
        "there is no GPU number 2: the driver has 1"
    );
    assert_eq!(
        GpuError::NoRoom { what: "kernels", free: 5, total: 50 }.to_string(),
        "the GPU has no room for kernels: 5 of 50 bytes are free"
    );
}
