// SPDX-License-Identifier: Apache-2.0
// arch_list.h - one line per architecture, in the order in which detection tries them.
// More specific ones stand first: the first match under a prefix wins.
// No include guard: read with AT_ARCH defined.
AT_ARCH(flux1_dev)
AT_ARCH(flux1_schnell)
AT_ARCH(clip_g)
AT_ARCH(clip_h)
AT_ARCH(clip_l)
AT_ARCH(t5)
AT_ARCH(kl_vae)
AT_ARCH(kl_vae_diffusers)
