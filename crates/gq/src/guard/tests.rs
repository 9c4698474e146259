use super::table::PATHS;
use crate::adapters;
use crate::cli::Cli;
use clap::builder::ValueParser;
use clap::{Arg, Command, CommandFactory};
use std::collections::BTreeSet;

/// Options of all commands that take a path, or something with a path in it.
fn options(command: &Command, name: &str, found: &mut BTreeSet<(String, String)>) {
    let paths = [
        ValueParser::path_buf().type_id(),
        ValueParser::new(adapters::lora).type_id(),
        ValueParser::new(adapters::tokenizer_from).type_id(),
    ];
    let has_path = |arg: &&Arg| paths.contains(&arg.get_value_parser().type_id());
    for arg in command.get_arguments().filter(has_path) {
        found.insert((name.to_owned(), arg.get_id().to_string()));
    }
    for sub in command.get_subcommands() {
        let name = [name, sub.get_name()].join(" ");
        options(sub, name.trim(), found);
    }
}

#[test]
fn every_option_with_a_path_is_in_the_table() {
    let mut found = BTreeSet::new();
    options(&Cli::command(), "", &mut found);
    let listed: BTreeSet<_> =
        PATHS.iter().map(|(command, option, _)| (command.to_string(), option.to_string())).collect();
    assert_eq!(listed.len(), PATHS.len(), "a row twice");
    let missing: Vec<_> = found.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "say in guard/table.rs what these paths are for: {missing:?}");
    assert!(found.contains(&("meta set".to_owned(), "output".to_owned())));
}
