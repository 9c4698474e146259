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
    /// 4-bit codes with zero points too in --format compressed-tensors, where they are closer; without this all codes are
    /// symmetric, which every engine and every version of compressed-tensors reads.
    #[arg(long)]
    pub zero_points: bool,
}

fn group_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| GROUPS.contains(size));
    size.ok_or_else(|| "expected 32, 64 or 128".to_owned())
}

impl GroupArgs {
    /// Codes to choose from: of 4 bits, symmetric and with zero points, and of 8 bits.
    pub fn codes(&self) -> Vec<GroupCode> {
        let groups = || {
            let asked = |group: &usize| self.group_size.is_empty() || self.group_size.contains(group);
            GROUPS.into_iter().filter(asked)
        };
        let code = |bits, symmetric| groups().filter_map(move |group| GroupCode::new(bits, group, symmetric));
        let zeros = code(4, false).filter(|_| self.zero_points);
        code(4, true).chain(zeros).chain(code(8, true)).collect()
    }

    /// An option that was given.
    pub fn given(&self) -> Option<&'static str> {
        match (self.group_size.is_empty(), self.zero_points) {
            (false, _) => Some("--group-size"),
            (true, true) => Some("--zero-points"),
            (true, false) => None,
        }
    }

    /// What an output's name says of it.
    pub fn name(&self) -> String {
        let mut groups = self.group_size.clone();
        groups.sort_unstable();
        groups.dedup();
        let groups: String = groups.into_iter().map(|group| format!("-g{group}")).collect();
        groups + if self.zero_points { "-zp" } else { "" }
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
        assert!(line("--group-size 256").is_err());
        assert_eq!(parsed("--group-size 64,32 --zero-points").name(), "-g32-g64-zp");
        assert_eq!((parsed("").given(), parsed("--zero-points").given()), (None, Some("--zero-points")));
    }
}
