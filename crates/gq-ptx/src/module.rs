//! PTX text to kernels.

use crate::decode::{Decoded, decode};
use crate::instruction::{Condition, Instruction, Op};
use crate::lex::{Token, tokens};
use crate::liveness;
use crate::operand::{CONSTANT_WINDOW, Names, Written, number};
use crate::types::Type;
use std::collections::HashMap;
use std::fmt;

/// The kernels of a PTX text.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    /// Constants and initialized variables, one after the other.
    pub(crate) constants: Vec<u8>,
}

/// One `.entry`.
#[derive(Debug)]
pub struct Kernel {
    /// Name.
    pub name: String,
    /// Parameters in order.
    pub parameters: Vec<Parameter>,
    /// Most threads a block, by `.maxntid`.
    pub most_threads: Option<u32>,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of local memory a thread.
    pub local: u32,
    /// Instructions, in text order.
    pub(crate) code: Vec<Instruction>,
    /// First parts of opcodes; [`Instruction::opcode`] indexes them.
    pub(crate) opcodes: Vec<String>,
    /// Rows of registers; constants follow, then special registers.
    pub(crate) slots: usize,
    pub(crate) values: Vec<u64>,
    pub(crate) predicates: usize,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name.
    pub name: String,
    /// Bytes.
    pub bytes: usize,
    /// Where it begins among all parameters.
    pub offset: usize,
}

/// What is not understood, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// The statement or directive.
    pub text: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: not understood, or without defined bits: {}", self.line, self.text)
    }
}

impl std::error::Error for ParseError {}

impl Module {
    /// Parses a whole text.
    ///
    /// # Errors
    /// At the first statement that is not understood, or whose result PTX does not define to the bit.
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        let tokens = tokens(text);
        let mut parser = Parser { tokens: &tokens, at: 0, variables: Variables::default() };
        let mut kernels = Vec::new();
        while let Some(token) = parser.peek() {
            match token.text {
                ".version" | ".target" | ".address_size" => parser.line(),
                ".visible" | ".extern" | ".weak" => parser.at += 1,
                ".entry" => kernels.push(parser.kernel()?),
                ".const" | ".global" | ".shared" => parser.variable()?,
                _ => return Err(parser.error()),
            }
        }
        Ok(Module { kernels, constants: parser.variables.constants })
    }

    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Every kernel, in text order.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }
}

/// Variables outside of kernels, or of one kernel.
#[derive(Clone, Debug, Default)]
struct Variables<'a> {
    constants: Vec<u8>,
    symbols: HashMap<&'a str, u64>,
    shared: u64,
    /// Symbols of dynamic shared memory: at the end of the static one.
    dynamic: Vec<&'a str>,
    local: u64,
}

struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    variables: Variables<'a>,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn text(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn error(&self) -> ParseError {
        let line = self.peek().or(self.tokens.last().copied()).map_or(0, |token| token.line);
        let words = self.tokens.iter().filter(|token| token.line == line).map(|token| token.text);
        ParseError { line, text: words.collect::<Vec<_>>().join(" ") }
    }

    /// Skips the rest of the line.
    fn line(&mut self) {
        let line = self.peek().map_or(0, |token| token.line);
        while self.peek().is_some_and(|token| token.line == line) {
            self.at += 1;
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        match self.text(0) == text {
            true => {
                self.at += 1;
                Ok(())
            }
            false => Err(self.error()),
        }
    }

    fn size(&mut self) -> Result<u64, ParseError> {
        let found = number(self.text(0)).ok_or_else(|| self.error())?;
        self.at += 1;
        Ok(found)
    }

    /// `.SPACE .align N .TYPE name[count] [= {values}];`
    fn variable(&mut self) -> Result<(), ParseError> {
        let space = self.text(0);
        self.at += 1;
        let mut align = 1;
        if self.text(0) == ".align" {
            self.at += 1;
            align = self.size()?.max(1);
        }
        let of = self.text(0).strip_prefix('.').and_then(Type::of).ok_or_else(|| self.error())?;
        self.at += 1;
        let name = self.text(0);
        self.at += 1;
        let mut count = Some(1);
        if self.text(0) == "[" {
            self.at += 1;
            count = if self.text(0) == "]" { None } else { Some(self.size()?) };
            self.expect("]")?;
        }
        let mut data = Vec::new();
        if self.text(0) == "=" {
            self.at += 1;
            let listed = self.text(0) == "{";
            self.at += usize::from(listed);
            while !matches!(self.text(0), "}" | ";" | "") {
                let value = self.size()?;
                data.extend_from_slice(&value.to_le_bytes()[..of.bytes()]);
                self.at += usize::from(self.text(0) == ",");
            }
            self.at += usize::from(listed);
        }
        self.expect(";")?;
        let align = align.max(of.bytes() as u64);
        let bytes = count.unwrap_or(0) * of.bytes() as u64;
        let known = &mut self.variables;
        let address = match (space, count) {
            (".shared", None) => {
                known.dynamic.push(name);
                return Ok(());
            }
            (".shared", Some(_)) => {
                let at = known.shared.next_multiple_of(align);
                known.shared = at + bytes;
                at
            }
            (".local", Some(_)) => {
                let at = known.local.next_multiple_of(align);
                known.local = at + bytes;
                at
            }
            (".const" | ".global", Some(_)) => {
                let at = known.constants.len().next_multiple_of(align as usize);
                data.resize(bytes as usize, 0);
                known.constants.resize(at, 0);
                known.constants.extend_from_slice(&data);
                CONSTANT_WINDOW + at as u64
            }
            _ => return Err(self.error()),
        };
        known.symbols.insert(name, address);
        Ok(())
    }

    fn kernel(&mut self) -> Result<Kernel, ParseError> {
        self.expect(".entry")?;
        let name = self.text(0).to_owned();
        self.at += 1;
        let (mut names, mut parameters) = (Names::default(), Vec::new());
        if self.text(0) == "(" {
            self.at += 1;
            while self.text(0) != ")" {
                let parameter = self.parameter(&parameters, &mut names)?;
                parameters.push(parameter);
                self.at += usize::from(self.text(0) == ",");
            }
            self.at += 1;
        }
        let mut most_threads = None;
        while self.text(0) != "{" {
            match self.text(0) {
                ".maxntid" => {
                    self.at += 1;
                    let mut product = self.size()?;
                    while self.text(0) == "," {
                        self.at += 1;
                        product *= self.size()?;
                    }
                    most_threads = Some(product as u32);
                }
                ".minnctapersm" | ".maxnreg" => self.at += 2,
                _ => return Err(self.error()),
            }
        }
        let outer = self.variables.clone();
        let body = self.body(&mut names)?;
        let inner = std::mem::replace(&mut self.variables, outer);
        self.variables.constants = inner.constants;
        let (mut code, opcodes) = body;
        let slots = liveness::assign(&mut code, names.registers(), names.values.len());
        Ok(Kernel {
            name,
            parameters,
            most_threads,
            static_shared: inner.shared as u32,
            local: inner.local as u32,
            code,
            opcodes,
            slots,
            predicates: names.predicates(),
            values: names.values,
        })
    }

    fn parameter(&mut self, before: &[Parameter], names: &mut Names<'a>) -> Result<Parameter, ParseError> {
        self.expect(".param")?;
        let mut align = 1;
        if self.text(0) == ".align" {
            self.at += 1;
            align = self.size()? as usize;
        }
        let of = self.text(0).strip_prefix('.').and_then(Type::of).ok_or_else(|| self.error())?;
        self.at += 1;
        let name = self.text(0);
        self.at += 1;
        let mut count = 1;
        if self.text(0) == "[" {
            self.at += 1;
            count = self.size()? as usize;
            self.expect("]")?;
        }
        let end = before.last().map_or(0, |last| last.offset + last.bytes);
        let offset = end.next_multiple_of(align.max(of.bytes()));
        names.parameters.insert(name, offset as u64);
        Ok(Parameter { name: name.to_owned(), bytes: of.bytes() * count, offset })
    }

    /// Statements to the brace that closes the kernel. Symbols of dynamic shared memory, which may be declared in front
    /// of it, lie behind the static one, so variables are read first.
    fn body(&mut self, names: &mut Names<'a>) -> Result<(Vec<Instruction>, Vec<String>), ParseError> {
        let (start, mut depth, mut begins) = (self.at, 0usize, true);
        loop {
            match self.text(0) {
                "" => return Err(self.error()),
                "{" => depth += 1,
                "}" => depth -= 1,
                ".shared" | ".local" if begins => {
                    self.variable()?;
                    continue;
                }
                _ => {}
            }
            begins = matches!(self.text(0), ";" | "{" | "}" | ":");
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        let end = self.at;
        self.at = start;
        let dynamic = self.variables.shared.next_multiple_of(16);
        let variables = &self.variables;
        names.symbols.extend(variables.symbols.iter().map(|(name, address)| (*name, *address)));
        names.symbols.extend(variables.dynamic.iter().map(|name| (*name, dynamic)));
        if !variables.dynamic.is_empty() {
            self.variables.shared = dynamic;
        }
        self.statements(end, names)
    }

    fn statements(
        &mut self,
        end: usize,
        names: &mut Names<'a>,
    ) -> Result<(Vec<Instruction>, Vec<String>), ParseError> {
        let mut code: Vec<Instruction> = Vec::new();
        let (mut labels, mut branches, mut opcodes) = (HashMap::new(), Vec::new(), Vec::<String>::new());
        while self.at < end {
            match self.text(0) {
                "{" | "}" | ";" => self.at += 1,
                ".reg" => self.registers(names)?,
                ".shared" | ".local" | ".pragma" => self.skip_statement(),
                label if self.text(1) == ":" => {
                    labels.insert(label, code.len());
                    self.at += 2;
                }
                _ => {
                    let start = self.at;
                    let line = self.peek().map_or(0, |token| token.line);
                    let guard = self.guard(names);
                    let opcode = self.text(0);
                    self.at += 1;
                    let operands = self.operands();
                    let decoded = operands.and_then(|operands| decode(opcode, &operands, names));
                    let Some(decoded) = decoded else {
                        self.at = start;
                        return Err(self.error());
                    };
                    self.expect(";")?;
                    let family = opcode.split('.').next().unwrap_or(opcode);
                    let number = opcodes.iter().position(|known| known == family).unwrap_or_else(|| {
                        opcodes.push(family.to_owned());
                        opcodes.len() - 1
                    });
                    let ops = match decoded {
                        Decoded::Ops(ops) => ops,
                        Decoded::Branch(label) => {
                            branches.push((code.len(), label, line));
                            vec![Op::Branch { target: usize::MAX }]
                        }
                    };
                    for (place, op) in ops.into_iter().enumerate() {
                        code.push(Instruction { op, guard, line, opcode: number as u16, first: place == 0 });
                    }
                }
            }
        }
        for (place, label, line) in branches {
            let Some(target) = labels.get(label) else {
                return Err(ParseError { line, text: format!("bra {label}: no such label") });
            };
            code[place].op = Op::Branch { target: *target };
        }
        Ok((code, opcodes))
    }

    /// `.reg .TYPE name, name<count>;`
    fn registers(&mut self, names: &mut Names<'a>) -> Result<(), ParseError> {
        self.at += 1;
        self.text(0).strip_prefix('.').and_then(Type::of).ok_or_else(|| self.error())?;
        self.at += 1;
        while self.text(0) != ";" {
            let name = self.text(0);
            self.at += 1;
            let mut count = None;
            if self.text(0) == "<" {
                self.at += 1;
                count = Some(self.size()?);
                self.expect(">")?;
            }
            names.declare(name, count);
            match self.text(0) {
                "," => self.at += 1,
                ";" => {}
                _ => return Err(self.error()),
            }
        }
        Ok(())
    }

    fn skip_statement(&mut self) {
        while !matches!(self.text(0), ";" | "") {
            self.at += 1;
        }
    }

    /// `@p` or `@!p`.
    fn guard(&mut self, names: &mut Names<'a>) -> Option<Condition> {
        if self.text(0) != "@" {
            return None;
        }
        self.at += 1;
        let negated = self.text(0) == "!";
        self.at += usize::from(negated);
        let predicate = names.predicate(self.text(0));
        self.at += 1;
        Some(Condition { predicate, negated })
    }

    /// Operands up to the semicolon.
    fn operands(&mut self) -> Option<Vec<Written<'a>>> {
        let mut out = Vec::new();
        while self.text(0) != ";" {
            out.push(self.operand()?);
            match self.text(0) {
                "," => self.at += 1,
                ";" => {}
                _ => return None,
            }
        }
        Some(out)
    }

    fn operand(&mut self) -> Option<Written<'a>> {
        let word = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_$%-".contains(c));
        let first = self.text(0);
        self.at += 1;
        match first {
            "!" => {
                self.at += 1;
                Some(Written::Not(self.tokens[self.at - 1].text))
            }
            "[" => {
                let (base, mut offset) = (self.text(0), 0);
                self.at += 1;
                self.at += usize::from(self.text(0) == "+");
                if self.text(0) != "]" {
                    offset = number(self.text(0))? as i64;
                    self.at += 1;
                }
                self.at += 1;
                (self.tokens[self.at - 1].text == "]").then_some(Written::Address(base, offset))
            }
            "{" => {
                let mut words = Vec::new();
                while self.text(0) != "}" {
                    words.push(Some(self.text(0)).filter(|text| word(text))?);
                    self.at += 1;
                    self.at += usize::from(self.text(0) == ",");
                }
                self.at += 1;
                Some(Written::Vector(words))
            }
            first if word(first) && self.text(0) == "|" => {
                self.at += 2;
                Some(Written::Pair(first, self.tokens[self.at - 1].text))
            }
            first if word(first) => Some(Written::Word(first)),
            _ => None,
        }
    }
}
