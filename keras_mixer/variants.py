"""The sizes of the models, and the names of their constructors.

The help of the command line lists the models, so this module does not import
Keras, which takes seconds.
"""

# Table 1 of the paper. S/8 is not in the table, but has published weights
# (trained with GSAM, arXiv 2203.08065). The order is that of the first
# arguments of `Mixer`.
# fmt: off
MIXER = {
    #            patch  blocks  hidden  tokens_mlp  channels_mlp
    "mixer_s32": (  32,      8,    512,        256,         2048),
    "mixer_s16": (  16,      8,    512,        256,         2048),
    "mixer_s8":  (   8,      8,    512,        256,         2048),
    "mixer_b32": (  32,     12,    768,        384,         3072),
    "mixer_b16": (  16,     12,    768,        384,         3072),
    "mixer_l32": (  32,     24,   1024,        512,         4096),
    "mixer_l16": (  16,     24,   1024,        512,         4096),
    "mixer_h14": (  14,     32,   1280,        640,         5120),
    # For images of 32 x 32 pixels. Not in the paper.
    "mixer_nano": (  4,      8,    128,         64,          256),
}
# fmt: on


# Table 3 of the paper, and B24 on patches of 8 x 8 pixels, which has published
# weights. The initial values of LayerScale are from `resmlp_models.py` in
# facebookresearch/deit. The order is that of the first arguments of `ResMLP`.
# fmt: off
RESMLP = {
    #               patch  blocks  hidden  channels_mlp  layer_scale
    "resmlp_s12":   (  16,     12,    384,         1536,         0.1),
    "resmlp_s24":   (  16,     24,    384,         1536,        1e-5),
    "resmlp_s36":   (  16,     36,    384,         1536,        1e-6),
    "resmlp_b24":   (  16,     24,    768,         3072,        1e-6),
    "resmlp_b24p8": (   8,     24,    768,         3072,        1e-6),
}
# fmt: on

CONSTRUCTORS = {
    "MixerS32": "mixer_s32",
    "MixerS16": "mixer_s16",
    "MixerS8": "mixer_s8",
    "MixerB32": "mixer_b32",
    "MixerB16": "mixer_b16",
    "MixerL32": "mixer_l32",
    "MixerL16": "mixer_l16",
    "MixerH14": "mixer_h14",
    "MixerNano": "mixer_nano",
    "ResMLPS12": "resmlp_s12",
    "ResMLPS24": "resmlp_s24",
    "ResMLPS36": "resmlp_s36",
    "ResMLPB24": "resmlp_b24",
    "ResMLPB24P8": "resmlp_b24p8",
}


def patch_size(constructor):
    """Returns the side of a patch in pixels.

    Args:
        constructor: Name of the constructor of a variant.
    """
    return {**MIXER, **RESMLP}[CONSTRUCTORS[constructor]][0]
