//! GGUF: the format, its blocks, hostile files, and models in it.

mod blocks;
mod damage;
mod format;
mod judged;
mod models;
mod support;
mod sweep;
