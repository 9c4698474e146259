//! Encodings as people name them: the list in the help, and what comes near another tool's names.

use gq_convert::Choice;

/// All encodings, in the help of `gq convert`.
pub fn list() -> String {
    let mut list =
        "Encodings (bits per weight without scales; `gq bench --codec` shows distortion and speed):"
            .to_owned();
    for family in gq_codec::families() {
        let asked = match family.names {
            "tt2 … tt6" => "; what --size, --bpw, --fit and --target-kld choose among, with tq7 and tq8",
            "grid" => "; without being asked for, it is used where it takes no more bytes",
            _ => "",
        };
        list += &format!("\n  {:<19}  {}{asked}", family.names, family.text);
    }
    list
}

/// Names of other tools' types and their bits per weight, scales and larger layers included: llama.cpp's as its own table
/// for Llama 3.1 8B has them.
const FOREIGN: [(&str, &str, f64); 44] = [
    ("iq1_s", "llama.cpp", 2.0),
    ("iq1_m", "llama.cpp", 2.1),
    ("iq2_xxs", "llama.cpp", 2.4),
    ("iq2_xs", "llama.cpp", 2.6),
    ("iq2_s", "llama.cpp", 2.7),
    ("iq2_m", "llama.cpp", 2.9),
    ("iq3_xxs", "llama.cpp", 3.3),
    ("iq3_xs", "llama.cpp", 3.5),
    ("iq3_s", "llama.cpp", 3.7),
    ("iq3_m", "llama.cpp", 3.8),
    ("iq4_xs", "llama.cpp", 4.5),
    ("iq4_nl", "llama.cpp", 4.7),
    ("tq1_0", "llama.cpp", 1.7),
    ("tq2_0", "llama.cpp", 2.1),
    ("q2_k", "llama.cpp", 3.2),
    ("q2_k_s", "llama.cpp", 3.0),
    ("q3_k", "llama.cpp", 4.0),
    ("q3_k_s", "llama.cpp", 3.6),
    ("q3_k_m", "llama.cpp", 4.0),
    ("q3_k_l", "llama.cpp", 4.3),
    ("q4_0", "llama.cpp", 4.7),
    ("q4_1", "llama.cpp", 5.1),
    ("q4_k", "llama.cpp", 4.9),
    ("q4_k_s", "llama.cpp", 4.7),
    ("q4_k_m", "llama.cpp", 4.9),
    ("q5_0", "llama.cpp", 5.6),
    ("q5_1", "llama.cpp", 6.1),
    ("q5_k", "llama.cpp", 5.7),
    ("q5_k_s", "llama.cpp", 5.6),
    ("q5_k_m", "llama.cpp", 5.7),
    ("q6_k", "llama.cpp", 6.6),
    ("q8_0", "llama.cpp", 8.5),
    ("nf4", "bitsandbytes", 4.1),
    ("fp4", "bitsandbytes", 4.5),
    ("awq", "AutoAWQ", 4.2),
    ("gptq", "GPTQ", 4.2),
    ("hqq", "HQQ", 4.2),
    ("int4", "many tools", 4.2),
    ("w4a16", "llm-compressor", 4.2),
    ("nvfp4", "NVIDIA", 4.5),
    ("int8", "many tools", 8.0),
    ("w8a16", "llm-compressor", 8.0),
    ("w8a8", "llm-compressor", 8.0),
    ("fp8", "many tools", 8.0),
];

/// The encoding of that name.
///
/// # Errors
/// A sentence that says what comes near, where the name is another tool's or a number of bits.
pub fn choice(name: &str) -> Result<Choice, String> {
    Choice::from_name(name).ok_or_else(|| refusal(name))
}

fn refusal(name: &str) -> String {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let plain = plain.strip_prefix("ud_").unwrap_or(&plain);
    if let Some((_, tool, bits)) = FOREIGN.iter().find(|(foreign, ..)| *foreign == plain) {
        return format!(
            "it is a type of {tool}, {bits:.1} bits per weight: near it come --bpw {bits:.1}, which plans over all codes, and {}",
            nearest(*bits)
        );
    }
    // 4bpw, 4.0bpw, 4bit, 4.25
    let number = plain.trim_end_matches("bpw").trim_end_matches("bits").trim_end_matches("bit");
    if let Some(bits) = number.trim().parse::<f64>().ok().filter(|bits| (1.0..=16.0).contains(bits)) {
        return format!(
            "--bpw {bits} plans so many bits per weight; of single encodings {} comes near",
            nearest(bits)
        );
    }
    if let Some(near) = spelled_like(plain) {
        return format!("there is no such encoding; did you mean {near}?");
    }
    "there is no such encoding; `gq help convert` lists them".to_owned()
}

/// The trellis or scalar codes with the nearest number of bits: one, or two where it lies between them.
fn nearest(bits: f64) -> String {
    let code = |bits: u8| match bits {
        0..=6 => format!("-e tt{}", bits.max(2)),
        _ => format!("-e tq{}", bits.min(8)),
    };
    let (whole, part) = (bits.floor() as u8, bits.fract());
    match part {
        _ if !(2..8).contains(&whole) => code(whole),
        part if part < 0.3 => code(whole),
        part if part > 0.7 => code(whole + 1),
        _ => format!("{} and {}", code(whole), code(whole + 1)),
    }
}

fn spelled_like(name: &str) -> Option<String> {
    let name = name.replace('_', "-");
    let names = gq_tensor::Encoding::all().into_iter().map(gq_tensor::Encoding::name);
    let names = names.chain(["exact", "grid"].map(str::to_owned));
    let near = names.map(|known| (strsim::damerau_levenshtein(&known, &name), known)).min()?;
    (near.0 <= 1 && name.len() > 2).then_some(near.1)
}

/// Bits of `--bits`: whole ones.
///
/// # Errors
/// A sentence that names `--bpw` for fractions.
pub fn bits(text: &str) -> Result<u8, String> {
    if let Some(bits) = text.parse::<u8>().ok().filter(|bits| (1..=8).contains(bits)) {
        return Ok(bits);
    }
    match text.parse::<f64>() {
        Ok(bits) if bits.fract() != 0.0 && (1.0..8.5).contains(&bits) => Err(format!(
            "one code has a whole number of bits, 1 to 8; --bpw {bits} plans {bits} bits per weight over several"
        )),
        _ => Err("expected a whole number from 1 to 8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_tensor::Encoding;

    #[test]
    fn every_encoding_is_in_the_list() {
        let list = list();
        for name in Encoding::all().into_iter().map(Encoding::name) {
            let stem: String = name.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
            let suffix = name.split_once('-').map_or("", |(_, suffix)| suffix);
            let grid = stem == "grid" || name == "mxfp4" || stem == "f" || stem == "bf";
            assert!(list.contains(&stem) && (grid || list.contains(suffix)), "{name}");
        }
    }

    #[test]
    fn foreign_names_say_what_comes_near() {
        assert!(choice("tt4-s12").is_ok() && choice("EXACT").is_ok());
        let cases = [
            ("Q4_K_M", "llama.cpp, 4.9 bits per weight: near it come --bpw 4.9", "-e tt5"),
            ("iq4_xs", "--bpw 4.5", ""),
            ("UD-Q2_K", "--bpw 3.2", "-e tt3"),
            ("q8_0", "--bpw 8.5", "-e tq8"),
            ("4.0bpw", "--bpw 4 plans", "-e tt4"),
            ("nf4", "bitsandbytes", "-e tt4"),
            ("tt4-s13", "did you mean tt4-s1", ""),
            ("nonsense", "gq help convert", ""),
        ];
        for (name, first, second) in cases {
            let told = choice(name).unwrap_err();
            assert!(told.contains(first) && told.contains(second), "{name}: {told}");
        }
    }

    #[test]
    fn fractions_of_bits_lead_to_the_option_that_has_them() {
        assert_eq!((bits("1"), bits("8")), (Ok(1), Ok(8)));
        assert!(bits("4.5").unwrap_err().contains("--bpw 4.5"));
        for bad in ["0", "9", "x", "-1", "300"] {
            assert!(bits(bad).unwrap_err().contains("from 1 to 8"), "{bad}");
        }
    }
}
