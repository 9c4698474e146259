//! Which tokens a step runs.

/// Tokens of prompts in a step next to answers that go on: those wait for them.
const BESIDE: usize = 128;
/// Tokens of a step of prompts alone.
const ALONE: usize = 512;

/// How many tokens of each sequence the next step runs, given how many each has to run, the longest waiting first.
///
/// A sequence with one token is an answer that goes on: all of them are in every step. Prompts share what is left: half of
/// it is the first one's, so that it is read in the end, and the rest goes to the shortest.
pub(super) fn share(pending: &[usize]) -> Vec<usize> {
    let mut given: Vec<usize> = pending.iter().map(|&pending| pending.min(1)).collect();
    let prompts = || (0..pending.len()).filter(|&index| pending[index] > 1);
    let answers = pending.iter().filter(|&&pending| pending == 1).count();
    let room = if answers > 0 { BESIDE } else { ALONE };
    // One token each was given already only to answers.
    prompts().for_each(|index| given[index] = 0);
    let mut left = room;
    if let Some(first) = prompts().next() {
        given[first] = pending[first].min(room / 2);
        left -= given[first];
    }
    let mut shortest: Vec<usize> = prompts().collect();
    shortest.sort_by_key(|&index| (pending[index] - given[index], index));
    for index in shortest {
        let more = (pending[index] - given[index]).min(left);
        given[index] += more;
        left -= more;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_on_and_prompts_share_the_rest() {
        assert_eq!(share(&[]), [0; 0]);
        assert_eq!(share(&[1, 1, 1]), [1, 1, 1]);
        // Alone: as much as a step takes.
        assert_eq!(share(&[9000]), [ALONE]);
        assert_eq!(share(&[300]), [300]);
        // A long prompt first, a short one behind it: half for the one, all for the other, the rest for the first again.
        assert_eq!(share(&[9000, 20]), [ALONE - 20, 20]);
        assert_eq!(share(&[1, 9000, 20, 1]), [1, BESIDE - 20, 20, 1]);
        // Equal ones in their order; those for whom nothing is left wait.
        assert_eq!(share(&[400, 400, 400]), [400, ALONE - 400, 0]);
        assert_eq!(share(&[9000, 300, 200]), [256, 56, 200]);
        let many = vec![1; 64];
        assert_eq!(share(&many), many);
    }

    #[test]
    fn the_first_prompt_is_read_however_many_come_behind_it() {
        let mut left = 5000;
        let mut steps = 0;
        while left > 1 {
            let mut pending = vec![left];
            pending.extend([100; 40]);
            left -= share(&pending)[0];
            steps += 1;
        }
        assert!(steps <= 5000 / (ALONE / 2) + 2, "{steps}");
    }
}
