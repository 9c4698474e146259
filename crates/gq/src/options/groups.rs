//! Which integer codes a checkpoint in the format of compressed-tensors may have.

use gq_codec::GroupCode;

/// Columns of a group, the cheapest first.
const GROUPS: [usize; 3] = [128, 64, 32];

/// Groups and zero points.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct GroupArgs {
    /// Weights that share a scale in --format compressed-tensors: 32, 64 or 128, or several with commas between
    /// [default: whichever of the three is best, matrix by matrix].
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = group_size)]
    pub group_size: Vec<usize>,
    /// Bits of codes in --format compressed-tensors: 4 or 8, or both with a comma between [default: both, matrix by matrix].
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = code_bits)]
    pub code_bits: Vec<u8>,
    /// 4-bit codes with zero points too in --format compressed-tensors, where they are closer; without this all codes are
    /// symmetric, which every engine and every version of compressed-tensors reads.
    #[arg(long)]
    pub zero_points: bool,
}

fn group_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| GROUPS.contains(size));
    size.ok_or_else(|| "expected 32, 64 or 128".to_owned())
}

fn code_bits(text: &str) -> Result<u8, String> {
    let bits = text.parse().ok().filter(|bits| [4, 8].contains(bits));
    bits.ok_or_else(|| "expected 4 or 8".to_owned())
}

impl GroupArgs {
    /// Codes to choose from: of 4 bits, symmetric and with zero points, and of 8 bits, as far as they are asked for.
    pub fn codes(&self) -> Vec<GroupCode> {
        let groups = || {
            let asked = |group: &usize| self.group_size.is_empty() || self.group_size.contains(group);
            GROUPS.into_iter().filter(asked)
        };
        let code = |bits, symmetric| groups().filter_map(move |group| GroupCode::new(bits, group, symmetric));
        let zeros = code(4, false).filter(|_| self.zero_points);
        let all = code(4, true).chain(zeros).chain(code(8, true));
        all.filter(|code| self.code_bits.is_empty() || self.code_bits.contains(&code.bits())).collect()
    }

    /// An option that was given.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            ("--group-size", !self.group_size.is_empty()),
            ("--code-bits", !self.code_bits.is_empty()),
            ("--zero-points", self.zero_points),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// Sizes of groups that were asked for, for a message.
    pub fn sizes(&self) -> String {
        let sizes: Vec<String> = self.group_size.iter().map(usize::to_string).collect();
        sizes.join(", ")
    }

    /// What an output's name says of it.
    pub fn name(&self) -> String {
        let mut groups = self.group_size.clone();
        groups.sort_unstable();
        groups.dedup();
        let groups: String = groups.into_iter().map(|group| format!("-g{group}")).collect();
        let bits = match self.code_bits.as_slice() {
            [] => "",
            bits if bits.iter().all(|bits| *bits == 4) => "-int4",
            bits if bits.iter().all(|bits| *bits == 8) => "-int8",
            _ => "",
        };
        groups + bits + if self.zero_points { "-zp" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        groups: GroupArgs,
    }

    #[test]
    fn codes_are_those_that_were_asked_for() {
        let line = |args: &str| Line::try_parse_from(["gq"].into_iter().chain(args.split_whitespace()));
        let parsed = |args: &str| line(args).unwrap().groups;
        let codes = |args: &str| -> Vec<(u8, usize, bool)> {
            let codes = parsed(args).codes();
            codes.iter().map(|code| (code.bits(), code.group(), code.is_symmetric())).collect()
        };
        assert_eq!((codes("").len(), codes("--zero-points").len()), (6, 9));
        assert_eq!(codes("--group-size 128"), [(4, 128, true), (8, 128, true)]);
        assert_eq!(codes("--group-size 32 --zero-points"), [(4, 32, true), (4, 32, false), (8, 32, true)]);
        assert_eq!(codes("--group-size 64,128").len(), 4);
        assert_eq!(codes("--group-size 128 --code-bits 8"), [(8, 128, true)]);
        assert_eq!((codes("--code-bits 4").len(), codes("--code-bits 4,8").len()), (3, 6));
        assert_eq!(
            (parsed("--code-bits 8").name(), parsed("--code-bits 8").given()),
            ("-int8".to_owned(), Some("--code-bits"))
        );
        assert!(line("--group-size 256").is_err() && line("--code-bits 5").is_err());
        assert_eq!(parsed("--group-size 64,32 --zero-points").name(), "-g32-g64-zp");
        assert_eq!((parsed("").given(), parsed("--zero-points").given()), (None, Some("--zero-points")));
    }
}
