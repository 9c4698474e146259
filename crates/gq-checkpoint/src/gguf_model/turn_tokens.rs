//! Tokens that a chat template writes and the file's types hide: in llama.cpp they fall into pieces.

use super::named_templates;
use super::token_types::CONTROL;
use super::vocabulary::Vocabulary;
use crate::TurnTokens;
use crate::gguf::GgufError;
use std::collections::HashSet;

/// Longest name of a token that is looked for.
const LONGEST: usize = 64;

/// Deals with tokens of the template that are no single ids: an error, unless the user says what they are.
pub(super) fn settle(
    vocabulary: &mut Vocabulary<'_>,
    merges: &[(&str, &str)],
    choice: Option<TurnTokens>,
) -> Result<(), GgufError> {
    let templates = named_templates::all(vocabulary.metadata);
    let hidden = hidden(vocabulary, merges, &templates);
    match choice {
        _ if hidden.is_empty() => Ok(()),
        Some(TurnTokens::Text) => Ok(()),
        Some(TurnTokens::Single) => {
            hidden.into_iter().for_each(|id| vocabulary.types[id] = CONTROL as u64);
            Ok(())
        }
        None => {
            let tokens = hidden.iter().map(|&id| vocabulary.tokens[id].clone()).collect();
            Err(GgufError::TurnTokens { tokens, ids: hidden })
        }
    }
}

/// Ids of tokens that look like marks, stand in the template, are not marked, and that no merge makes.
fn hidden(vocabulary: &Vocabulary<'_>, merges: &[(&str, &str)], templates: &[&str]) -> Vec<usize> {
    let looks = |token: &str| {
        let bracketed =
            token.starts_with('<') && token.ends_with('>') || token.starts_with('[') && token.ends_with(']');
        bracketed && (3..=LONGEST).contains(&token.len())
    };
    let candidates = vocabulary.tokens.iter().enumerate();
    let mut found: Vec<usize> = candidates
        .filter(|&(id, token)| looks(token) && !vocabulary.is_added(id))
        .filter(|(_, token)| templates.iter().any(|template| template.contains(token.as_str())))
        .map(|(id, _)| id)
        .collect();
    if found.is_empty() {
        return found;
    }
    let pairs: HashSet<(&str, &str)> = merges.iter().copied().collect();
    found.retain(|&id| !is_made(&vocabulary.tokens[id], &pairs));
    found
}

/// Whether merges make a token out of its characters.
fn is_made(token: &str, pairs: &HashSet<(&str, &str)>) -> bool {
    let starts: Vec<usize> = token.char_indices().map(|(at, _)| at).chain([token.len()]).collect();
    let count = starts.len() - 1;
    // made[length - 1][first]: whether these characters become one piece.
    let mut made = vec![vec![true; count]];
    for length in 2..=count {
        let piece = |first: usize, length: usize| &token[starts[first]..starts[first + length]];
        let row = (0..=count - length).map(|first| {
            (1..length).any(|left| {
                made[left - 1][first]
                    && made[length - left - 1][first + left]
                    && pairs.contains(&(piece(first, left), piece(first + left, length - left)))
            })
        });
        let row = row.collect();
        made.push(row);
    }
    made.last().and_then(|row| row.first()).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_by_merges() {
        let pairs = |list: &[(&'static str, &'static str)]| list.iter().copied().collect::<HashSet<_>>();
        let whole = pairs(&[("<", "a"), ("<a", "b>"), ("b", ">")]);
        assert!(is_made("<ab>", &whole));
        // Without the last step, or with a step whose parts are not made.
        assert!(!is_made("<ab>", &pairs(&[("<", "a"), ("b", ">")])));
        assert!(!is_made("<ab>", &pairs(&[("<a", "b>"), ("b", ">")])));
        assert!(is_made("x", &pairs(&[])));
    }
}
