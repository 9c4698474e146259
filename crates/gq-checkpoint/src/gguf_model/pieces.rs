//! Merges of a SentencePiece vocabulary, which has scores instead.

use super::vocabulary::Vocabulary;
use crate::gguf::{Array, GgufError, Value as Metadatum};
use std::collections::HashMap;

/// A piece comes from every split into two pieces, best score first.
///
/// # Errors
/// When there is not one score for each token.
pub(super) fn piece_merges<'a>(vocabulary: &Vocabulary<'a>) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
    let key = "tokenizer.ggml.scores";
    let missing = || GgufError::MissingKey { key: key.to_owned() };
    let scores = vocabulary.metadata.get(key).and_then(Metadatum::as_array).ok_or_else(missing)?;
    let scores = Array::as_f32s(scores).filter(|scores| scores.len() == vocabulary.tokens.len());
    let scores = scores.ok_or_else(|| GgufError::Contradiction {
        key: key.to_owned(),
        fault: format!("not one number for each of {} tokens", vocabulary.tokens.len()),
    })?;
    let mut merges: Vec<(usize, usize, usize)> =
        splits(vocabulary.tokens).into_iter().map(|split| (split.whole, split.left, split.right)).collect();
    merges.sort_unstable();
    merges.sort_by(|x, y| scores[y.0].total_cmp(&scores[x.0])); // stable: equal scores stay in the order of ids
    let token = |id: usize| vocabulary.tokens[id].as_str();
    Ok(merges.into_iter().map(|(_, a, b)| (token(a), token(b))).collect())
}

/// A token that two others make, by their places in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Split {
    whole: usize,
    left: usize,
    right: usize,
}

/// All splits of `tokens`, which are all different but for empty ones, in no order.
///
/// Of each token only those beginnings are looked at that are tokens, so that the work grows with their number and not
/// with the square of a token's length.
fn splits(tokens: &[String]) -> Vec<Split> {
    let reversed: Vec<String> = tokens.iter().map(|token| token.chars().rev().collect()).collect();
    let (prefixes, suffixes) = (longest_prefixes(tokens), longest_prefixes(&reversed));
    let chain = |links: &[Option<usize>], from: usize| {
        std::iter::successors(links[from], |&id| links[id]).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    let mut by_length = HashMap::new();
    for (whole, token) in tokens.iter().enumerate() {
        let lefts = chain(&prefixes, whole);
        if lefts.is_empty() || suffixes[whole].is_none() {
            continue;
        }
        by_length.clear();
        by_length.extend(lefts.into_iter().map(|left| (tokens[left].len(), left)));
        for right in chain(&suffixes, whole) {
            let rest = token.len() - tokens[right].len();
            found.extend(by_length.get(&rest).map(|&left| Split { whole, left, right }));
        }
    }
    found
}

/// For each of `tokens` the longest other one that it begins with, which is not empty.
fn longest_prefixes(tokens: &[String]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..tokens.len()).filter(|&id| !tokens[id].is_empty()).collect();
    order.sort_unstable_by_key(|&id| tokens[id].as_str());
    let mut links = vec![None; tokens.len()];
    // Beginnings of the token at hand, each of the next: whatever begins with one stands behind it in a row.
    let mut open: Vec<usize> = Vec::new();
    for id in order {
        while open.last().is_some_and(|&last| !tokens[id].starts_with(tokens[last].as_str())) {
            open.pop();
        }
        links[id] = open.last().copied();
        open.push(id);
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place of every token looked up.
    fn plainly(tokens: &[String]) -> Vec<Split> {
        let at = |wanted: &str| tokens.iter().position(|token| token == wanted);
        let mut found = Vec::new();
        for (whole, token) in tokens.iter().enumerate() {
            for (place, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(place);
                if let (Some(left), Some(right)) = (at(left), at(right)) {
                    found.push(Split { whole, left, right });
                }
            }
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn splits_are_those_that_looking_everywhere_finds() {
        let named = ["", "a", "ab", "abc", "b", "bc", "c", "▁", "▁a", "é", "aé", "éa", "é▁", "x", "", "abca"];
        let named: Vec<String> = named.iter().map(|token| (*token).to_owned()).collect();
        // All words of up to four letters of two.
        let mut words = vec![String::new()];
        for length in 1..=4u32 {
            let word =
                |bits: u32| (0..length).map(|at| if bits >> at & 1 == 0 { 'o' } else { 'é' }).collect();
            words.extend((0..1 << length).map(word));
        }
        for tokens in [named, words] {
            let mut found = splits(&tokens);
            found.sort_unstable();
            assert_eq!(found, plainly(&tokens));
            assert!(found.len() > 8);
        }
    }

    /// A token of a million characters is looked at about once: in the square of that this would not end.
    #[test]
    fn a_long_token_takes_no_square_of_its_length() {
        let long = "a".repeat(1_000_000);
        let tokens = vec!["a".to_owned(), long.clone(), format!("{long}a"), "b".to_owned()];
        let mut found = splits(&tokens);
        found.sort_unstable();
        assert_eq!(found, [Split { whole: 2, left: 0, right: 1 }, Split { whole: 2, left: 1, right: 0 }]);
    }
}
