//! `README.md`: the model card that the Hub shows.

use super::PAGE;
use super::manifest::{Entry, Manifest};
use super::recipe::CardFields;
use crate::failure::Failure;
use crate::sums::SUMS;
use crate::units;
use gq_eval::EvalReport;
use serde::Serialize;
use std::fmt::Write;

/// What the card says beyond the manifest.
pub struct Facts<'a> {
    /// The repository that was quantized.
    pub base_model: &'a str,
    /// The repository that the release will be in.
    pub repo: Option<&'a str>,
    /// Licence, languages, tags, a paragraph.
    pub fields: &'a CardFields,
    /// Identifier of the licence.
    pub license: &'a str,
    /// Whether codes were rounded by measurements.
    pub calibrated: bool,
    /// Name of the text.
    pub text: &'a str,
    /// Digest of the text.
    pub text_sha256: &'a str,
    /// Whether the model has a chat template.
    pub chat: bool,
    /// Whether the tokenizer composes text (NFC), which a GGUF cannot say.
    pub composes: bool,
    /// Adapters, with their weights.
    pub adapters: &'a [(String, f64)],
    /// Source files: name and digest.
    pub source: &'a [(String, String)],
    /// Licence files next to the card.
    pub licences: &'a [String],
    /// Program and instruction set.
    pub tool: &'a str,
}

/// The card.
///
/// # Errors
/// When its front matter cannot be written: a defect of gq.
pub fn render(manifest: &Manifest, reports: &[EvalReport], facts: &Facts<'_>) -> Result<String, Failure> {
    let mut card = front_matter(facts)?;
    let title = if facts.adapters.is_empty() { "quantized" } else { "fine-tuned and quantized" };
    // Writing to a String does not fail.
    let _ = write!(card, "\n# {}, {title}\n\n", manifest.name);
    if let Some(text) = &facts.fields.description {
        let _ = write!(card, "{}\n\n", text.trim());
    }
    let sizes = match manifest.variants.len() {
        1 => "one file".to_owned(),
        n => format!("{n} sizes"),
    };
    let _ = write!(
        card,
        "{} as {sizes} for `gq`. Each `.gq` file is complete: weights, configuration, tokenizer, chat template, \
         licence and provenance.\n\n",
        link(facts.base_model)
    );
    if !facts.calibrated {
        card += "Not calibrated: codes are rounded to nearest, without a look at what activations need.\n\n";
    }
    if !facts.adapters.is_empty() {
        let list: Vec<String> =
            facts.adapters.iter().map(|(name, weight)| format!("`{name}` (weight {weight})")).collect();
        let _ = write!(card, "Adapters merged in before quantization: {}.\n\n", list.join(", "));
    }
    card += &table(manifest);
    if let Some(report) = reports.first() {
        let _ = write!(
            card,
            "\nMeasured against the original on `{}` (sha256 `{}`): {} positions in {} windows of {} tokens. \
             KLD is the mean of KL(original ‖ file) of the next-token distributions in nats, ± one standard error; \
             \"same top token\" is the share of positions with the same likeliest token. \
             Figures for more quantiles, plots over size, position and tensor: [{PAGE}]({PAGE}).\n",
            facts.text,
            facts.text_sha256.get(..16).unwrap_or_default(),
            units::count(report.tokens as u64),
            units::count(report.windows as u64),
            report.scored.ctx,
        );
    }
    card += &run_lines(manifest, facts);
    card += &origin(manifest, facts);
    Ok(card)
}

/// What stands between the two lines `---`, in this order.
#[derive(Serialize)]
struct FrontMatter<'a> {
    base_model: &'a str,
    base_model_relation: &'a str,
    library_name: &'a str,
    pipeline_tag: &'a str,
    license: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_link: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    language: &'a [String],
    tags: Vec<&'a str>,
}

fn front_matter(facts: &Facts<'_>) -> Result<String, Failure> {
    let fields = facts.fields;
    let mut ours = vec!["gq", "quantized", "turboquant"];
    if !facts.adapters.is_empty() {
        ours.push("lora");
    }
    let others = fields.tags.iter().map(String::as_str).filter(|tag| !ours.contains(tag));
    let tags = ours.iter().copied().chain(others).collect();
    yaml(&FrontMatter {
        base_model: facts.base_model,
        base_model_relation: "quantized",
        library_name: "gq",
        pipeline_tag: "text-generation",
        license: facts.license,
        license_name: fields.license_name.as_deref(),
        license_link: fields.license_link.as_deref(),
        language: &fields.language,
        tags,
    })
}

/// As YAML between two lines `---`. Texts that YAML 1.1 or 1.2 would read as something else are in quotes.
fn yaml(matter: &FrontMatter<'_>) -> Result<String, Failure> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = "---\n".to_owned();
    serde_saphyr::to_fmt_writer_with_options(&mut text, matter, options)
        .map_err(|e| Failure::internal("front matter", &e))?;
    Ok(text + "---\n")
}

/// A repository on the Hub as a link; anything else as a name.
fn link(model: &str) -> String {
    match gq_hub::RepoId::new(model) {
        Ok(id) if id.owner().is_some() => format!("[{model}](https://huggingface.co/{model})"),
        _ => format!("`{model}`"),
    }
}

fn table(manifest: &Manifest) -> String {
    let mut table =
        "| file | bytes | bits per weight | perplexity | KLD | same top token |\n|---|--:|--:|--:|--:|--:|\n"
            .to_owned();
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let original = &manifest.original;
    let _ = writeln!(
        table,
        "| the original | {} | {:.2} | {} | | |",
        units::count(original.bytes),
        original.bits,
        number(original.ppl)
    );
    for entry in &manifest.variants {
        let Entry { file, bytes, bits, ppl, kld, kld_stderr, top1, .. } = entry;
        let _ = writeln!(
            table,
            "| [{file}]({file}) | {} | {bits:.2} | {} | {} | {:.1} % |",
            units::count(*bytes),
            number(*ppl),
            units::with_error(*kld, *kld_stderr),
            100.0 * top1
        );
    }
    table
}

fn run_lines(manifest: &Manifest, facts: &Facts<'_>) -> String {
    let Some(first) = manifest.variants.first() else { return String::new() };
    let file = &first.file;
    let prompt = match facts.chat {
        true => "--chat -p 'Why is the sky blue?'",
        false => "-p 'Once upon a time'",
    };
    let mut lines = "\n## Run it\n\n```sh\n".to_owned();
    let at = facts.repo.map_or_else(|| format!("./{file}"), |repo| format!("hf://{repo}/{file}"));
    let _ = write!(lines, "gq run {at} {prompt}\ngq inspect {at} --tensors\n");
    if let Some(repo) = facts.repo {
        let _ = writeln!(lines, "gq pull {repo} --include '{file}'");
    }
    lines += "```\n";
    if facts.repo.is_some() {
        lines += "\nA file is fetched once, and found in the cache from then on.\n";
    }
    lines += &elsewhere(&at, file, facts.chat, facts.composes);
    let _ = write!(
        lines,
        "\n## Check it\n\nIn this folder, offline: every digest, manifest and limit.\n\n```sh\ngq verify .\n\
         sha256sum -c {SUMS}\n```\n"
    );
    lines
}

/// Lines for llama.cpp and Ollama: a `.gq` file is written as a GGUF first.
fn elsewhere(at: &str, file: &str, chat: bool, composes: bool) -> String {
    let stem = file.strip_suffix(".gq").unwrap_or(file);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.to_ascii_lowercase().chars().map(plain).collect();
    let prompt = if chat { "Why is the sky blue?" } else { "Once upon a time" };
    let (drop_nfc, nfc) = match composes {
        true => {
            (" --drop-nfc", "; `--drop-nfc` because llama.cpp does not compose accents as the tokenizer does")
        }
        false => ("", ""),
    };
    format!(
        "\nIn llama.cpp and Ollama, from a GGUF that is written out of the file (`--type F16` keeps all of its quality, at \
         twice the bytes of Q8_0{nfc}):\n\n```sh\ngq export {at} --gguf --type Q8_0{drop_nfc} --ollama -o {stem}.gguf\n\
         llama-cli -m {stem}.gguf -p '{prompt}'\n\
         ollama create {name} -f {stem}.Modelfile && ollama run {name} '{prompt}'\n```\n"
    )
}

fn origin(manifest: &Manifest, facts: &Facts<'_>) -> String {
    let mut text =
        format!("\n## Origin\n\nMade by {} from\n\n| source file | sha256 |\n|---|---|\n", facts.tool);
    for (name, sha256) in facts.source {
        let _ = writeln!(text, "| {} | `{sha256}` |", name.replace('|', "\\|"));
    }
    let _ = write!(
        text,
        "\n`release.json` has the recipe, and `{}-*.tensors.json` each tensor with its encoding, digest and rounding error. \
         The same source, recipe and version give the same files, byte for byte.\n\n## Licence\n\nThat of the \
         original, `{}`",
        manifest.name, facts.license
    );
    match facts.licences {
        [] => text += ".\n",
        files => {
            let files: Vec<String> = files.iter().map(|file| format!("[{file}]({file})")).collect();
            let _ = writeln!(text, ": {}.", files.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_a_gguf_is_one_that_works() {
        let lines = |composes| elsewhere("hf://me/m/m.gq", "m.gq", true, composes);
        assert!(lines(false).contains("gq export hf://me/m/m.gq --gguf --type Q8_0 --ollama -o m.gguf\n"));
        assert!(
            lines(true)
                .contains("gq export hf://me/m/m.gq --gguf --type Q8_0 --drop-nfc --ollama -o m.gguf\n")
        );
    }

    #[test]
    fn front_matter_cannot_be_misread() {
        let texts = [
            "apache-2.0",
            "org/name",
            "no",
            "y",
            "null",
            "~",
            "1.5",
            "a: b",
            "x\ny",
            "",
            "#a",
            "1_000",
            "a'b\"c",
        ];
        let texts = texts.map(str::to_owned);
        let long = "word ".repeat(40);
        let written = yaml(&FrontMatter {
            base_model: "true",
            base_model_relation: "quantized",
            library_name: "gq",
            pipeline_tag: "text-generation",
            license: "other",
            license_name: Some(&long),
            license_link: None,
            language: &texts,
            tags: vec!["gq", "12:30", "---"],
        })
        .unwrap();
        let lists = "language:\n- apache-2.0\n- org/name\n- \"no\"\n- \"y\"\n- \"null\"\n- \"~\"\n- \"1.5\"\n- \"a: b\"\n\
                     - \"x\\ny\"\n- \"\"\n- \"#a\"\n- \"1_000\"\n- a'b\"c\ntags:\n- gq\n- \"12:30\"\n- \"---\"\n---\n";
        assert_eq!(
            written,
            format!(
                "---\nbase_model: \"true\"\nbase_model_relation: quantized\nlibrary_name: gq\n\
                 pipeline_tag: text-generation\nlicense: other\nlicense_name: \"{long}\"\n{lists}"
            )
        );
        let read = gq_checkpoint::Card::parse(&written).unwrap();
        assert_eq!(read.get("language"), Some(&gq_checkpoint::CardValue::List(texts.to_vec())));
        assert_eq!((read.text("base_model"), read.text("license_name")), (Some("true"), Some(&*long)));
    }
}
