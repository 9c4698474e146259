//! What generating a token spends its time on: each kind of matrix by itself, and how fast memory could be read.

use crate::failure::{Exit, Failure};
use gq_checkpoint::{ExpectedTensor, ModelSpec, Role};
use gq_codec::{Activations, Decoder};
use gq_container::Container;
use gq_model::{ActivationMode, RunOptions};
use gq_tensor::CodedRows;
use rayon::prelude::*;
use serde::Serialize;
use std::time::Instant;

/// Passes over the matrices of a kind; the fastest counts.
const PASSES: usize = 5;
/// Bytes read to measure memory: more than any cache holds.
const MEMORY_BYTES: usize = 256 << 20;
/// Rows that a thread takes at a time.
const CHUNK_ROWS: usize = 64;

/// The products of one kind of matrix, for one token.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What the matrices do.
    pub role: &'static str,
    /// Encoding of the first of them.
    pub encoding: String,
    /// Bytes read per token.
    pub bytes: u64,
    /// Seconds per token.
    pub seconds: f64,
}

/// Products by kind, and the machine's limit.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Products, in the order of the graph.
    pub products: Vec<Part>,
    /// Bytes per second at which all threads together read memory.
    pub memory_bytes_per_second: f64,
}

impl Profile {
    /// Seconds per token of all products.
    pub fn seconds(&self) -> f64 {
        self.products.iter().map(|part| part.seconds).sum()
    }

    /// Bytes read per token by all products.
    pub fn bytes(&self) -> u64 {
        self.products.iter().map(|part| part.bytes).sum()
    }
}

/// Measures the products of a file's matrices, outside the graph, in rayon's current pool.
///
/// # Errors
/// When a matrix cannot be read.
pub fn profile(container: &Container, spec: &ModelSpec, options: RunOptions) -> Result<Profile, Failure> {
    let expected = spec.expected_tensors();
    let mut roles: Vec<Role> = Vec::new();
    for tensor in expected.iter().filter(|tensor| multiplies(tensor, spec)) {
        if !roles.contains(&tensor.role) {
            roles.push(tensor.role);
        }
    }
    let mut products = Vec::new();
    for role in roles {
        let tensors: Vec<&ExpectedTensor> = expected.iter().filter(|tensor| tensor.role == role).collect();
        products.push(part(container, spec, options, role, &tensors)?);
    }
    Ok(Profile { products, memory_bytes_per_second: memory_rate() })
}

/// Whether a token's pass multiplies by this tensor.
fn multiplies(tensor: &ExpectedTensor, spec: &ModelSpec) -> bool {
    match tensor.role {
        Role::Embedding => spec.tied_head,
        Role::PerLayerTable => false,
        _ => tensor.shape.len() > 1,
    }
}

/// A matrix with what multiplies it.
struct Product<'a> {
    matrix: CodedRows<'a>,
    decoder: Decoder,
    rows: usize,
    x: Vec<f32>,
    codes: Activations,
}

fn part(
    container: &Container,
    spec: &ModelSpec,
    options: RunOptions,
    role: Role,
    tensors: &[&ExpectedTensor],
) -> Result<Part, Failure> {
    let products = tensors.iter().filter_map(|tensor| product(container, spec, options, tensor).transpose());
    let products: Vec<Product<'_>> = products.collect::<Result<_, _>>()?;
    let encoding = products.first().map_or_else(String::new, |product| product.matrix.encoding().name());
    let row_bytes = |matrix: &CodedRows<'_>| {
        let cols = matrix.shape().cols;
        matrix.encoding().codes_row_bytes(cols) + matrix.encoding().scales_row_bytes(cols)
    };
    let bytes = products.iter().map(|product| (product.rows * row_bytes(&product.matrix)) as u64).sum();
    let mut out = vec![0.0; products.iter().map(|product| product.rows).max().unwrap_or(0)];
    let seconds = fastest(|| products.iter().for_each(|product| multiply(product, options, &mut out)));
    Ok(Part { role: role.name(), encoding, bytes, seconds })
}

fn product<'a>(
    container: &'a Container,
    spec: &ModelSpec,
    options: RunOptions,
    tensor: &ExpectedTensor,
) -> Result<Option<Product<'a>>, Failure> {
    let Some(entry) = container.tensor(&tensor.name) else { return Ok(None) };
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Input, "bench.matrix", format!("{}: {error}", tensor.name)).at(&tensor.name)
    };
    let matrix = container.matrix(entry).map_err(|e| broken(&format!("{e:?}")))?;
    let cols = matrix.shape().cols;
    let decoder = Decoder::new(entry.storage(), cols).map_err(|e| broken(&e))?;
    // Only the experts that are chosen multiply.
    let moe = tensor.layer.and_then(|layer| spec.layers.get(layer)?.moe);
    let rows = match (tensor.role, moe) {
        (Role::ExpertGateUp | Role::ExpertDown, Some(moe)) => {
            matrix.shape().rows / moe.experts * moe.router.top_k
        }
        _ => matrix.shape().rows,
    };
    let x: Vec<f32> = (0..cols).map(|i| (i * 7919 % 101) as f32 / 50.0 - 1.0).collect();
    let codes = Activations::quantize(options.level, &x);
    Ok(Some(Product { matrix, decoder, rows, x, codes }))
}

fn multiply(product: &Product<'_>, options: RunOptions, out: &mut [f32]) {
    let Product { matrix, decoder, rows, x, codes } = product;
    out[..*rows].par_chunks_mut(CHUNK_ROWS).enumerate().for_each(|(chunk, out)| {
        let rows = chunk * CHUNK_ROWS..chunk * CHUNK_ROWS + out.len();
        match options.activations {
            ActivationMode::Int8 => decoder.dot_rows(options.level, matrix, rows, codes, out),
            ActivationMode::F32 => decoder.dot_rows_f32(options.level, matrix, rows, x, out),
        }
    });
}

/// Seconds of the fastest of some runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let started = Instant::now();
        run();
        started.elapsed().as_secs_f64()
    };
    (0..PASSES).map(time).fold(f64::INFINITY, f64::min)
}

/// Bytes per second of summing up a large buffer.
pub fn memory_rate() -> f64 {
    let buffer = vec![1u64; MEMORY_BYTES / 8];
    let seconds = fastest(|| {
        let sum: u64 = buffer.par_chunks(1 << 16).map(|part| part.iter().sum::<u64>()).sum();
        std::hint::black_box(sum);
    });
    MEMORY_BYTES as f64 / seconds
}
