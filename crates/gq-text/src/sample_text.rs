//! A text made to tell tokenizers apart: spaces, line ends, tabs, digits, scripts, marks, and runs of each.

/// Pieces of one kind each.
pub(crate) const SAMPLES: [(&str, &str); 16] = [
    ("spaces", " a  b   c    d     e      f       g        h                z  "),
    ("spaces in front", "  two"),
    ("spaces behind", "two  "),
    ("line ends", "a\nb\n\nc\n\n\nd\n\n\n\n\ne\r\nf\r\n\r\ng \n h  \n\n  i\n "),
    ("tabs", "\tif x:\n\t\treturn\ty\t\t\tz \t \t\n\t\n"),
    (
        "digits",
        "1 12 123 1234 12345 123456 1234567 12345678 3.14 1,000,000 2024-01-31 0x7F 1e-9 x2y 7th ²½Ⅷ ١٢٣ १२३ ３４",
    ),
    (
        "punctuation",
        "!! ... --- ==> (a)[b]{c} \"q\" 'q' a_b a-b a/b\\c #x @y $z %w ^ & * + ~ ` | <x> </x> <<>> ;; :: ?!",
    ),
    ("contractions", "I'm you're he'll we've they'd don't it's WE'VE I'LL '80s o'clock ’s"),
    ("cases", "camelCase PascalCase SCREAMING_CASE iPhone XMLHttpRequest ÀÉ àé ÅÄÖ ǅ"),
    (
        "scripts",
        "Straße façade Łódź Ελλάδα Москва עברית العربية فارسی हिन्दी বাংলা தமிழ் ไทย ລາວ ქართული Հայ አማርኛ 中文字 日本語の文 カタカナ 한국어 ᠮᠣᠩ",
    ),
    (
        "combining marks",
        "e\u{301} é n\u{303} ñ a\u{30A} å o\u{308}\u{304} q\u{307}\u{323} \u{1112}\u{1161}\u{11AB} 한 क\u{93F} ZA\u{336}L\u{35D}GO\u{321}",
    ),
    ("compatibility forms", "ﬁ ﬂ ½ № ℡ Ａｂｃ ｶﾀ ㎏ ① ² Å Ω ſ ı İ"),
    ("emoji", "🙂🙂 👍🏽 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ ✔ ☃ 𝔘𝔫𝔦 𝟙𝟚"),
    (
        "rare spaces",
        "a\u{A0}b\u{2009}c\u{200B}d\u{3000}e\u{2028}f\u{85}g\u{FEFF}h\u{AD}i\u{200D}j\u{C}k\u{B}l",
    ),
    ("controls and private use", "\u{1}\u{7}\u{1B}[0m\u{7F}\u{E000}\u{F8FF}\u{10FFFF}\u{378}\u{FFFD}"),
    ("marks of tokenizers", "▁ ▁▁a a▁b Ġ Ċ ## </w> <0x41> <0x0A> [UNK] <s> </s> <unk> <|endoftext|> [PAD]"),
];
