//! Options that every command takes.

use crate::output::Output;
use clap::{Args, ValueEnum};
use gq_checkpoint::{OpenOptions, TurnTokens};
use gq_tensor::{Avx2, Avx512, Isa};

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print one JSON document on standard output; errors too.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only errors on standard error, and only the result of a conversion, without tables.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How to show progress, on standard error.
    #[arg(long, global = true, value_name = "MODE", default_value = "auto", hide_possible_values = false)]
    pub progress: ProgressMode,
    /// Threads to compute with [default: all].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Instruction set to use [default: the best this machine has].
    #[arg(long, global = true, value_name = "ISA")]
    pub isa: Option<IsaArg>,
    #[command(flatten)]
    pub reading: Reading,
}

/// What a GGUF may leave open, and keys that are not known.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reading a GGUF")]
pub struct Reading {
    /// Ignore an unknown key of config.json or of a GGUF's metadata that does not change what the model computes;
    /// repeatable.
    #[arg(long, global = true, value_name = "NAME")]
    pub ignore_key: Vec<String>,
    /// Pre-tokenizer of a GGUF that does not name one, such as llama-bpe; `default` is what llama.cpp assumes.
    #[arg(long, global = true, value_name = "NAME", value_parser = pre_tokenizer)]
    pub assume_pre: Option<String>,
    /// Tokens of the chat template that a GGUF does not mark as special: `single` reads each as one token, as the model
    /// was trained; `text` tokenizes them as any other text, as llama.cpp does.
    #[arg(long, global = true, value_name = "HOW", hide_possible_values = true)]
    pub turn_tokens: Option<TurnTokensArg>,
}

/// `--turn-tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TurnTokensArg {
    /// Each is one token.
    Single,
    /// Tokenized as any other text.
    Text,
}

fn pre_tokenizer(name: &str) -> Result<String, String> {
    let known = gq_checkpoint::gguf_model::pre_tokenizer_names();
    match known.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("expected one of {}", known.join(", "))),
    }
}

impl Reading {
    /// As the library takes it.
    pub fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::default();
        options.ignored_keys = self.ignore_key.clone();
        options.assume_pre = self.assume_pre.clone();
        options.turn_tokens = self.turn_tokens.map(|how| match how {
            TurnTokensArg::Single => TurnTokens::Single,
            TurnTokensArg::Text => TurnTokens::Text,
        });
        options
    }
}

/// Instruction sets that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsaArg {
    /// Plain Rust, which the others are tested against.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// The same and AVX-512 with F, BW, VBMI and VNNI (AMD from Zen 4 on, Intel's servers from Ice Lake on).
    Avx512,
}

impl Global {
    /// How to speak.
    pub fn output(&self) -> Output {
        Output { json: self.json, quiet: self.quiet }
    }

    /// Threads to compute with.
    pub fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.map_or_else(all, usize::from)
    }

    /// Kernels to compute with.
    ///
    /// # Errors
    /// When this machine does not have the instructions asked for.
    pub fn isa(&self) -> Result<Isa, crate::failure::Failure> {
        use crate::failure::{Exit, Failure};
        let Some(isa) = self.isa else { return Ok(Isa::detect()) };
        let (name, level, needed) = match isa {
            IsaArg::Scalar => return Ok(Isa::Scalar),
            IsaArg::Avx2 => ("avx2", Avx2::detect().map(Isa::Avx2), "AVX2 with FMA and F16C"),
            IsaArg::Avx512 => {
                ("avx512", Avx512::detect().map(Isa::Avx512), "AVX-512 with F, BW, VBMI and VNNI")
            }
        };
        level.ok_or_else(|| {
            let message = format!("--isa {name}: this machine has no {needed}");
            Failure::new(Exit::Environment, "isa.missing", message)
                .at("--isa")
                .limit(Isa::detect().name())
                .actual(name)
        })
    }
}

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere.
    Auto,
    /// A bar.
    Bar,
    /// A line every few seconds.
    Plain,
    /// Nothing.
    None,
}

/// Where options that all commands have are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// In the help of every command.
    Everywhere,
    /// Once, in that of the program.
    Once,
}
