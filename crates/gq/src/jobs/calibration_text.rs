//! Calibration text: read, rendered or written by the model, and cut into sequences of tokens.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::jobs::measuring_memory::Writing;
use crate::options::amounts::{Measuring, NONE, TextSource};
use crate::options::recipe::Recipe;
use crate::progress::Progress;
use crate::{expected, source};
use gq_calibrate::{CalibrationText, SelfTextOptions, self_text};
use gq_checkpoint::Checkpoint;
use gq_model::Model;
use gq_text::{ChatError, ChatTemplate, ModelTexts, SpecialText, Tokenizer};
use std::path::{Path, PathBuf};

/// Bytes of a token, where many follow one another, at the most.
const LONG_TOKEN: usize = 64;

/// Takes the tokens that a model has written, and those that it is to write.
pub type Written<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Calibration text in tokens.
#[derive(Clone)]
pub struct TextSequences {
    /// The texts that the sequences are known by.
    pub texts: Vec<CalibrationText>,
    /// Tokens of the model's vocabulary, each sequence of the same length but where a text ends.
    pub sequences: Vec<Vec<u32>>,
}

/// A model that calibration text is made for, and that writes it where that is asked for.
#[derive(Clone, Copy)]
pub struct TextWriter<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Bytes that writing may take.
    pub max_memory: Option<u64>,
    /// Threads, instruction set and output.
    pub global: &'a Global,
}

impl TextWriter<'_> {
    /// About `tokens` tokens of the text asked for, in sequences of `ctx`.
    ///
    /// # Errors
    /// When the text cannot be read or is too short, or the model cannot write it.
    pub fn sequences(
        self,
        calibration: Option<&Path>,
        tokens: usize,
        ctx: usize,
        seen: Written<'_>,
    ) -> Result<TextSequences, Failure> {
        match given_texts(&TextSource::of(calibration), self.model.texts(), self.global)? {
            None => self.self_sequences(tokens, ctx, seen),
            Some(texts) => {
                let sequences = gq_calibrate::sequences(self.tokenizer, &texts, tokens, ctx)?;
                Ok(TextSequences { texts, sequences })
            }
        }
    }

    /// What the model writes, as sequences, and as the text that they are known by.
    fn self_sequences(self, tokens: usize, ctx: usize, seen: Written<'_>) -> Result<TextSequences, Failure> {
        let written = source::with_threads(self.global, || self.self_tokens(tokens, ctx, seen))??;
        let text = written.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let mut sequences: Vec<Vec<u32>> = written.chunks_exact(ctx).map(<[u32]>::to_vec).collect();
        if let Some(bos) = self.tokenizer.bos() {
            sequences.iter_mut().filter_map(|sequence| sequence.first_mut()).for_each(|first| *first = bos);
        }
        let texts = vec![CalibrationText { name: "self".to_owned(), text, special: SpecialText::Plain }];
        Ok(TextSequences { texts, sequences })
    }

    /// `tokens` tokens that the model writes, in the threads at hand, each answer of at most `answer`.
    ///
    /// # Errors
    /// When its chat template cannot be rendered, or memory is too little for one conversation.
    pub fn self_tokens(self, tokens: usize, answer: usize, seen: Written<'_>) -> Result<Vec<u32>, Failure> {
        let TextWriter { model, tokenizer, max_memory, global } = self;
        let chat = template(model.texts())?;
        let memory = Writing::new(model.spec(), answer, max_memory, global)?.conversations;
        let options = SelfTextOptions { tokens, answer, seed: 0, memory };
        let mut step = |done: usize| seen(done as u64, tokens as u64);
        let written = self_text(model, tokenizer, chat.as_ref(), options, &mut step);
        written.map_err(|e| Failure::new(Exit::Input, "calibration.self", e.to_string()))
    }
}

/// Refuses text of which there is too little, before anything else takes time.
pub fn refuse_short(checkpoint: &Checkpoint, how: &Measuring) -> Result<(), Failure> {
    let TextSource::Files(path) = how.source() else { return Ok(()) };
    let texts = texts(path)?;
    // Of more than that there is enough, whatever the tokenizer.
    let most = LONG_TOKEN.saturating_mul(2 * how.ctx);
    if texts.iter().map(|text| text.text.len()).max().unwrap_or(0) > most {
        return Ok(());
    }
    let tokenizer = Tokenizer::new(&ModelTexts::from_checkpoint(checkpoint)?, checkpoint.spec())?;
    gq_calibrate::sequences(&tokenizer, &texts, how.tokens, how.ctx)?;
    Ok(())
}

/// Texts that are there before the model has written any; `None`: it is to write them.
pub fn given_texts(
    source: &TextSource<'_>,
    model: &ModelTexts,
    global: &Global,
) -> Result<Option<Vec<CalibrationText>>, Failure> {
    match source {
        TextSource::SelfText => Ok(None),
        TextSource::Files(path) => texts(path).map(Some),
        TextSource::Builtin => builtin(model, global).map(Some),
    }
}

/// The text that comes with the program, its conversations as the model's chat template renders them; a template that
/// cannot is no reason to do without.
fn builtin(model: &ModelTexts, global: &Global) -> Result<Vec<CalibrationText>, Failure> {
    let rendered = template(model).and_then(|chat| Ok(gq_calibrate::builtin(chat.as_ref())?));
    match rendered {
        Err(failure) if failure.exit == Exit::Input => {
            let sentence = failure.sentence();
            global.output().note(&format!("conversations are calibrated on as plain text: {sentence}"));
            Ok(gq_calibrate::builtin(None)?)
        }
        rendered => rendered,
    }
}

/// The model's chat template, where it has one.
pub fn template(texts: &ModelTexts) -> Result<Option<ChatTemplate>, Failure> {
    match ChatTemplate::new(texts) {
        Ok(chat) => Ok(Some(chat.with_clock(crate::clock::standing()))),
        Err(ChatError::Missing) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A bar for the tokens that a model writes, where nothing else is shown meanwhile; each takes so many multiplications.
pub fn writing(global: &Global, tokens: usize, pass: f64) -> Result<Progress, Failure> {
    Ok(Progress::staged(global, "writing text", vec![expected::writing(tokens, pass, global)?]))
}

/// The texts of a file, or of the .txt and .md files of a directory in the order of their names.
pub fn texts(path: &Path) -> Result<Vec<CalibrationText>, Failure> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Failure::io(&path, &error)
    };
    let mut files = Vec::new();
    if std::fs::metadata(path).map_err(io(path))?.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io(path))? {
            let file = entry.map_err(io(path))?.path();
            if file.extension().is_some_and(|end| end == "txt" || end == "md") {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    if files.is_empty() {
        let message = format!("{}: no .txt or .md file in this directory", path.display());
        return Err(Failure::new(Exit::Input, "calibration.empty", message).at(path.display()));
    }
    let read = |file: PathBuf| {
        let bytes = source::text_bytes(&file)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let message = format!("{}: byte {at} is not UTF-8", file.display());
            Failure::new(Exit::Input, "calibration.utf8", message)
                .at(file.display())
                .actual(format!("byte {at}"))
        })?;
        let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(CalibrationText { name, text, special: SpecialText::Plain })
    };
    files.into_iter().map(read).collect()
}

/// Refuses a text that cannot be read, before anything is done.
///
/// # Errors
/// When a file is missing, is not UTF-8, or a folder has none.
pub fn check(given: Option<&Path>) -> Result<(), Failure> {
    match (given, TextSource::of(given)) {
        (Some(name), TextSource::Files(path)) if name.as_os_str() != NONE => texts(path).map(drop),
        _ => Ok(()),
    }
}

/// Refuses a text or measurements that cannot be read, before anything is done.
///
/// # Errors
/// As [`check`] and [`Recipe::open_measurements`].
pub fn check_names(recipe: &Recipe, text: Option<&Path>) -> Result<(), Failure> {
    // Both together are refused for that.
    if recipe.measurements.is_none() || text.is_none() {
        check(text)?;
        recipe.open_measurements()?;
    }
    Ok(())
}
