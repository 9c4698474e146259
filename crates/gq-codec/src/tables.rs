//! Constants of `formats/encodings.md`, printed by `scripts/make_codebooks.py`.
#![cfg_attr(rustfmt, rustfmt::skip)]

/// One scalar codebook as printed: see `Codebook`.
#[derive(Debug)]
pub(crate) struct ScalarTable {
    pub magnitudes: &'static [u16],
    pub shift: u32,
    pub gaussian_scale: f64,
    pub distortion: f64,
    pub real_distortion: f64,
}

/// Codebooks of 1 to 8 bits.
pub(crate) const SCALAR: [ScalarTable; 8] = [
    // 1 bits: +0.000 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            1,
        ],
        shift: 0,
        gaussian_scale: 0.797884560803,
        distortion: 0.363380227632,
        real_distortion: 0.363380227632,
    },
    // 2 bits: +0.000 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            15, 50,
        ],
        shift: 5,
        gaussian_scale: 0.966623859687,
        distortion: 0.117481911838,
        real_distortion: 0.117481847829,
    },
    // 3 bits: +0.002 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            10, 31, 55, 88,
        ],
        shift: 5,
        gaussian_scale: 0.782276428275,
        distortion: 0.034548577677,
        real_distortion: 0.0345477607885,
    },
    // 4 bits: +0.055 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            5, 15, 25, 36, 48, 62, 79, 104,
        ],
        shift: 5,
        gaussian_scale: 0.838948416715,
        distortion: 0.00950621626219,
        real_distortion: 0.00950100800819,
    },
    // 5 bits: +0.753 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            3, 8, 13, 18, 23, 28, 34, 40, 46, 53, 60, 68, 77, 88, 102, 124,
        ],
        shift: 5,
        gaussian_scale: 0.840534519432,
        distortion: 0.00252351659524,
        real_distortion: 0.00250466835567,
    },
    // 6 bits: +0.002 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            68, 205, 343, 480, 619, 758, 899, 1041, 1185, 1330, 1478, 1629, 1783, 1940, 2101, 2266, 2437,
            2613, 2796, 2987, 3186, 3397, 3620, 3858, 4116, 4397, 4708, 5061, 5473, 5975, 6636, 7668,
        ],
        shift: 11,
        gaussian_scale: 0.999992446855,
        distortion: 0.000644252223612,
        real_distortion: 0.000644239665317,
    },
    // 7 bits: +0.022 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[
            17, 52, 86, 121, 155, 190, 225, 259, 294, 329, 364, 400, 435, 471, 507, 543, 579, 615, 652,
            689, 726, 764, 802, 840, 879, 918, 958, 998, 1039, 1080, 1122, 1164, 1207, 1251, 1296, 1341,
            1387, 1435, 1483, 1532, 1583, 1635, 1689, 1744, 1800, 1859, 1920, 1983, 2049, 2117, 2189, 2265,
            2345, 2431, 2522, 2620, 2728, 2846, 2979, 3131, 3309, 3530, 3825, 4290,
        ],
        shift: 10,
        gaussian_scale: 0.999960464705,
        distortion: 0.00016351346478,
        real_distortion: 0.00016347822998,
    },
    // 8 bits: +114.418 % over the real-valued optimum
    ScalarTable {
        magnitudes: &[

        ],
        shift: 5,
        gaussian_scale: 0.987842753293,
        distortion: 8.83080307158e-05,
        real_distortion: 4.1185082867e-05,
    },
];

/// Angles of one polar level: `[cos, sin]` as f32 bits.
#[derive(Debug)]
pub(crate) struct PolarTable {
    pub level: u8,
    pub bits: u8,
    pub directions: &'static [[u32; 2]],
    pub edges: &'static [[u32; 2]],
}

/// Level 1: all directions of the circle, edges inside the first quadrant; other levels: of [0, pi/2].
pub(crate) const POLAR: [PolarTable; 8] = [
    PolarTable {
        level: 1,
        bits: 4,
        directions: &[
            [0x3F7B14BE, 0x3E47C5C2], [0x3F54DB31, 0x3F0E39DA], [0x3F0E39DA, 0x3F54DB31],
            [0x3E47C5C2, 0x3F7B14BE], [0xBE47C5C2, 0x3F7B14BE], [0xBF0E39DA, 0x3F54DB31],
            [0xBF54DB31, 0x3F0E39DA], [0xBF7B14BE, 0x3E47C5C2], [0xBF7B14BE, 0xBE47C5C2],
            [0xBF54DB31, 0xBF0E39DA], [0xBF0E39DA, 0xBF54DB31], [0xBE47C5C2, 0xBF7B14BE],
            [0x3E47C5C2, 0xBF7B14BE], [0x3F0E39DA, 0xBF54DB31], [0x3F54DB31, 0xBF0E39DA],
            [0x3F7B14BE, 0xBE47C5C2],
        ],
        edges: &[
            [0x3F6C835E, 0x3EC3EF15], [0x3F3504F3, 0x3F3504F3], [0x3EC3EF15, 0x3F6C835E],
        ],
    },
    PolarTable {
        level: 1,
        bits: 5,
        directions: &[
            [0x3F7EC46D, 0x3DC8BD36], [0x3F74FA0B, 0x3E94A031], [0x3F61C598, 0x3EF15AEA],
            [0x3F45E403, 0x3F226799], [0x3F226799, 0x3F45E403], [0x3EF15AEA, 0x3F61C598],
            [0x3E94A031, 0x3F74FA0B], [0x3DC8BD36, 0x3F7EC46D], [0xBDC8BD36, 0x3F7EC46D],
            [0xBE94A031, 0x3F74FA0B], [0xBEF15AEA, 0x3F61C598], [0xBF226799, 0x3F45E403],
            [0xBF45E403, 0x3F226799], [0xBF61C598, 0x3EF15AEA], [0xBF74FA0B, 0x3E94A031],
            [0xBF7EC46D, 0x3DC8BD36], [0xBF7EC46D, 0xBDC8BD36], [0xBF74FA0B, 0xBE94A031],
            [0xBF61C598, 0xBEF15AEA], [0xBF45E403, 0xBF226799], [0xBF226799, 0xBF45E403],
            [0xBEF15AEA, 0xBF61C598], [0xBE94A031, 0xBF74FA0B], [0xBDC8BD36, 0xBF7EC46D],
            [0x3DC8BD36, 0xBF7EC46D], [0x3E94A031, 0xBF74FA0B], [0x3EF15AEA, 0xBF61C598],
            [0x3F226799, 0xBF45E403], [0x3F45E403, 0xBF226799], [0x3F61C598, 0xBEF15AEA],
            [0x3F74FA0B, 0xBE94A031], [0x3F7EC46D, 0xBDC8BD36],
        ],
        edges: &[
            [0x3F7B14BE, 0x3E47C5C2], [0x3F6C835E, 0x3EC3EF15], [0x3F54DB31, 0x3F0E39DA],
            [0x3F3504F3, 0x3F3504F3], [0x3F0E39DA, 0x3F54DB31], [0x3EC3EF15, 0x3F6C835E],
            [0x3E47C5C2, 0x3F7B14BE],
        ],
    },
    PolarTable {
        level: 2,
        bits: 2,
        directions: &[
            [0x3F73D102, 0x3E9C1234], [0x3F4E40CB, 0x3F17A4A8], [0x3F17A4A8, 0x3F4E40CB],
            [0x3E9C1234, 0x3F73D102],
        ],
        edges: &[
            [0x3F640645, 0x3EE8BAEC], [0x3F3504F3, 0x3F3504F3], [0x3EE8BAEC, 0x3F640645],
        ],
    },
    PolarTable {
        level: 2,
        bits: 3,
        directions: &[
            [0x3F7B77BE, 0x3E3FD50E], [0x3F6DBD0E, 0x3EBDE8D6], [0x3F5A7ABD, 0x3F056D48],
            [0x3F429A25, 0x3F2654BE], [0x3F2654BE, 0x3F429A25], [0x3F056D48, 0x3F5A7ABD],
            [0x3EBDE8D6, 0x3F6DBD0E], [0x3E3FD50E, 0x3F7B77BE],
        ],
        edges: &[
            [0x3F75BAAF, 0x3E8F921E], [0x3F64EB2A, 0x3EE53137], [0x3F4F31EC, 0x3F165A8B],
            [0x3F3504F3, 0x3F3504F3], [0x3F165A8B, 0x3F4F31EC], [0x3EE53137, 0x3F64EB2A],
            [0x3E8F921E, 0x3F75BAAF],
        ],
    },
    PolarTable {
        level: 3,
        bits: 2,
        directions: &[
            [0x3F691805, 0x3ED3B0E5], [0x3F47F596, 0x3F1FD9CC], [0x3F1FD9CC, 0x3F47F596],
            [0x3ED3B0E5, 0x3F691805],
        ],
        edges: &[
            [0x3F5A342C, 0x3F05E08F], [0x3F3504F3, 0x3F3504F3], [0x3F05E08F, 0x3F5A342C],
        ],
    },
    PolarTable {
        level: 3,
        bits: 3,
        directions: &[
            [0x3F73FD97, 0x3E9AFA88], [0x3F63DF46, 0x3EE95381], [0x3F5267A9, 0x3F11D3F0],
            [0x3F3F51AE, 0x3F2A18DA], [0x3F2A18DA, 0x3F3F51AE], [0x3F11D3F0, 0x3F5267A9],
            [0x3EE95381, 0x3F63DF46], [0x3E9AFA88, 0x3F73FD97],
        ],
        edges: &[
            [0x3F6CBE37, 0x3EC2D202], [0x3F5B9F89, 0x3F038927], [0x3F493A6B, 0x3F1E401F],
            [0x3F3504F3, 0x3F3504F3], [0x3F1E401F, 0x3F493A6B], [0x3F038927, 0x3F5B9F89],
            [0x3EC2D202, 0x3F6CBE37],
        ],
    },
    PolarTable {
        level: 4,
        bits: 2,
        directions: &[
            [0x3F5D9FAB, 0x3F0022EB], [0x3F42D255, 0x3F2612EB], [0x3F2612EB, 0x3F42D255],
            [0x3F0022EB, 0x3F5D9FAB],
        ],
        edges: &[
            [0x3F5115BB, 0x3F13B6DC], [0x3F3504F3, 0x3F3504F3], [0x3F13B6DC, 0x3F5115BB],
        ],
    },
    PolarTable {
        level: 4,
        bits: 3,
        directions: &[
            [0x3F69253F, 0x3ED3769A], [0x3F597C9B, 0x3F0709F9], [0x3F4B0D4A, 0x3F1BE750],
            [0x3F3C8D3D, 0x3F2D28DC], [0x3F2D28DC, 0x3F3C8D3D], [0x3F1BE750, 0x3F4B0D4A],
            [0x3F0709F9, 0x3F597C9B], [0x3ED3769A, 0x3F69253F],
        ],
        edges: &[
            [0x3F61CAC8, 0x3EF1477D], [0x3F528729, 0x3F11A673], [0x3F43FDE8, 0x3F24B0F5],
            [0x3F3504F3, 0x3F3504F3], [0x3F24B0F5, 0x3F43FDE8], [0x3F11A673, 0x3F528729],
            [0x3EF1477D, 0x3F61CAC8],
        ],
    },
];
