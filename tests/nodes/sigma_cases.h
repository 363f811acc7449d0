// SPDX-License-Identifier: Apache-2.0
// sigma_cases.h - made by tools/golden/sigma_nodes.py from ComfyUI 0.3.64: what node t
// puts out, on the model of tiny_dev.safetensors (Flux) as m.
static const sigma_case sigma_cases[] = {
    {"'t':{'class_type':'KarrasScheduler','inputs':{'steps':7,'rho':7.0,'sigma_max':14.614642,'"
     "sigma_min':0.0291675}}",
     0,
     8,
     {14.6146431, 7.09441519, 3.16860938, 1.27410495, 0.446920663, 0.130308628, 0.0291674994, 0}},
    {"'t':{'class_type':'KarrasScheduler','inputs':{'steps':1,'rho':7.0,'sigma_max':14.614642,'"
     "sigma_min':0.0291675}}",
     0,
     2,
     {14.6146431, 0}},
    {"'t':{'class_type':'KarrasScheduler','inputs':{'steps':4,'rho':2.5,'sigma_max':10.0,'sigma_"
     "min':0.0}}",
     0,
     5,
     {9.99999905, 3.62887311, 0.641500413, 0, 0}},
    {"'t':{'class_type':'ExponentialScheduler','inputs':{'steps':6,'sigma_max':14.614642,'sigma_"
     "min':0.0291675}}",
     0,
     7,
     {14.6146431, 4.21512461, 1.2157172, 0.350634694, 0.101129323, 0.0291675013, 0}},
    {"'t':{'class_type':'ExponentialScheduler','inputs':{'steps':3,'sigma_max':0.1,'sigma_min':2.0}"
     "}",
     0,
     4,
     {0.099999994, 0.44721359, 2, 0}},
    {"'t':{'class_type':'PolyexponentialScheduler','inputs':{'steps':6,'rho':1.0,'sigma_max':14."
     "614642,'sigma_min':0.0291675}}",
     0,
     7,
     {14.6146402, 4.21512365, 1.21571755, 0.350634605, 0.101129301, 0.0291675013, 0}},
    {"'t':{'class_type':'PolyexponentialScheduler','inputs':{'steps':5,'rho':0.4,'sigma_max':14."
     "614642,'sigma_min':0.0291675}}",
     0,
     6,
     {14.6146402, 7.43555689, 3.24363804, 1.0365212, 0.0291675013, 0}},
    {"'t':{'class_type':'PolyexponentialScheduler','inputs':{'steps':5,'rho':0.0,'sigma_max':14."
     "614642,'sigma_min':0.0291675}}",
     0,
     6,
     {14.6146402, 14.6146402, 14.6146402, 14.6146402, 14.6146402, 0}},
    {"'t':{'class_type':'LaplaceScheduler','inputs':{'steps':9,'mu':0.0,'beta':0.5,'sigma_max':14."
     "614642,'sigma_min':0.0291675}}",
     0,
     9,
     {14.6146421, 1.99995995, 1.41419935, 1.15469277, 1, 0.86603117, 0.707113862, 0.500010014,
      0.0291674994}},
    {"'t':{'class_type':'LaplaceScheduler','inputs':{'steps':4,'mu':1.3,'beta':2.0,'sigma_max':14."
     "614642,'sigma_min':0.0291675}}",
     0,
     4,
     {14.6146421, 8.25566769, 1.63084781, 0.0291674994}},
    {"'t':{'class_type':'LaplaceScheduler','inputs':{'steps':4,'mu':0.0,'beta':0.5,'sigma_max':0.1,"
     "'sigma_min':0.7}}",
     0,
     4,
     {0.100000001, 0.100000001, 0.100000001, 0.100000001}},
    {"'t':{'class_type':'VPScheduler','inputs':{'steps':6,'beta_d':19.9,'beta_min':0.1,'eps_s':0."
     "001}}",
     0,
     7,
     {152.166977, 25.1488457, 6.11166143, 2.03442907, 0.723806739, 0.0104859937, 0}},
    {"'t':{'class_type':'VPScheduler','inputs':{'steps':3,'beta_d':3.0,'beta_min':0.0,'eps_s':0.5}"
     "}",
     0,
     4,
     {1.86592853, 1.15111673, 0.674530506, 0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SD1','steps':10,'denoise'"
     ":1.0}}",
     0,
     11,
     {14.6146412, 6.474576, 3.86367464, 2.69461513, 1.88419211, 1.39438045, 0.964258373,
      0.652368605, 0.397745639, 0.151523262, 0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SDXL','steps':10,'"
     "denoise':0.45}}",
     0,
     5,
     {0.555069327, 0.379854083, 0.233236417, 0.111418821, 0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SDXL','steps':7,'denoise'"
     ":1.0}}",
     0,
     8,
     {14.6146412, 5.06296825, 2.35833812, 1.18166518, 0.629469633, 0.35428822, 0.152918652, 0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SVD','steps':14,'denoise'"
     ":0.5}}",
     0,
     8,
     {1.78900003, 1.16472578, 0.670014858, 0.357140809, 0.195214316, 0.0682799891, 0.0151328975,
      0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SD1','steps':1,'denoise':"
     "1.0}}",
     0,
     2,
     {14.6146412, 0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SD1','steps':10,'denoise'"
     ":0.02}}",
     0,
     1,
     {0}},
    {"'t':{'class_type':'AlignYourStepsScheduler','inputs':{'model_type':'SD1','steps':10,'denoise'"
     ":0.0}}",
     0,
     0,
     {0}},
    {"'t':{'class_type':'OptimalStepsScheduler','inputs':{'model_type':'FLUX','steps':10,'denoise':"
     "1.0}}",
     0,
     11,
     {0.996800005, 0.988600016, 0.981899977, 0.975000024, 0.966000021, 0.947099984, 0.915799975,
      0.828700006, 0.551199973, 0.280800015, 0}},
    {"'t':{'class_type':'OptimalStepsScheduler','inputs':{'model_type':'Wan','steps':12,'denoise':"
     "0.75}}",
     0,
     10,
     {0.989000022, 0.985666215, 0.978330493, 0.97299999, 0.962659299, 0.939623773, 0.90200001,
      0.80428952, 0.392416239, 0}},
    {"'t':{'class_type':'OptimalStepsScheduler','inputs':{'model_type':'Chroma','steps':5,'denoise'"
     ":1.0}}",
     0,
     6,
     {0.991999984, 0.961000025, 0.832000017, 0.500999987, 0.169, 0}},
    {"'t':{'class_type':'GITSScheduler','inputs':{'coeff':0.8,'steps':2,'denoise':1.0}}",
     0,
     3,
     {14.6146412, 7.49001646, 0}},
    {"'t':{'class_type':'GITSScheduler','inputs':{'coeff':1.2,'steps':10,'denoise':1.0}}",
     0,
     11,
     {14.6146412, 5.85520077, 2.84484982, 1.67050016, 1.08895338, 0.748070478, 0.501183808,
      0.32104823, 0.198949158, 0.0982453227, 0}},
    {"'t':{'class_type':'GITSScheduler','inputs':{'coeff':1.15,'steps':20,'denoise':0.3}}",
     0,
     7,
     {0.298078328, 0.25053367, 0.198949158, 0.170260832, 0.137921169, 0.0982453227, 0}},
    {"'t':{'class_type':'GITSScheduler','inputs':{'coeff':1.5,'steps':17,'denoise':1.0}}",
     0,
     18,
     {14.6146412, 2.36326075, 1.24153244, 0.803306997, 0.595163226, 0.455736905, 0.388533831,
      0.343706042, 0.32104823, 0.298078328, 0.274642885, 0.25053367, 0.225453854, 0.198949158,
      0.170260832, 0.137921169, 0.0982453227, 0}},
    {"'t':{'class_type':'GITSScheduler','inputs':{'coeff':0.95,'steps':26,'denoise':0.5}}",
     0,
     14,
     {4.45427561, 3.9073596, 3.37144661, 2.86618018, 2.40446949, 1.98749352, 1.62182915, 1.28931928,
      0.993966937, 0.742671311, 0.506835043, 0.302512914, 0.12773706, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'SDTurboScheduler','inputs':{'model':['ms',0],'steps':4,'denoise':"
     "1.0}}",
     0,
     5,
     {14.6146402, 8.30280304, 5.08776331, 3.32108307, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'SDTurboScheduler','inputs':{'model':['ms',0],'"
     "steps':10,'denoise':0.55}}",
     0,
     6,
     {1.76808023, 1.24137485, 0.874743402, 0.594751477, 0.354989022, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'SDTurboScheduler','inputs':{'model':['ms',0],'steps':2,'denoise':"
     "0.0}}",
     0,
     1,
     {0}},
    {"'t':{'class_type':'BetaSamplingScheduler','inputs':{'model':['m',0],'steps':6,'alpha':0.6,'"
     "beta':0.6}}",
     0,
     7,
     {1, 0.969095409, 0.892582417, 0.75958395, 0.545648992, 0.241540268, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'BetaSamplingScheduler','inputs':{'model':['ms',0],'steps':5,'"
     "alpha':1.7,'beta':0.4}}",
     0,
     6,
     {14.6146412, 13.842598, 10.6612568, 6.22710371, 2.61523581, 0}},
    {"'t':{'class_type':'SplitSigmas','inputs':{'sigmas':['up',0],'step':2}}",
     0,
     3,
     {14.5, 9.25, 4}},
    {"'t':{'class_type':'SplitSigmas','inputs':{'sigmas':['up',0],'step':2}}",
     1,
     4,
     {4, 1.5, 0.5, 0}},
    {"'t':{'class_type':'SplitSigmas','inputs':{'sigmas':['up',0],'step':9}}",
     0,
     6,
     {14.5, 9.25, 4, 1.5, 0.5, 0}},
    {"'t':{'class_type':'SplitSigmas','inputs':{'sigmas':['up',0],'step':9}}", 1, 0, {0}},
    {"'t':{'class_type':'SplitSigmas','inputs':{'sigmas':['none',0],'step':1}}", 0, 0, {0}},
    {"'t':{'class_type':'SplitSigmas','inputs':{'sigmas':['none',0],'step':1}}", 1, 0, {0}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['up',0],'denoise':0.5}}",
     0,
     4,
     {14.5, 9.25, 4, 1.5}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['up',0],'denoise':0.5}}",
     1,
     3,
     {1.5, 0.5, 0}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['up',0],'denoise':0.0}}",
     0,
     0,
     {0}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['up',0],'denoise':0.0}}",
     1,
     1,
     {0}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['up',0],'denoise':1.0}}",
     0,
     1,
     {14.5}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['up',0],'denoise':1.0}}",
     1,
     6,
     {14.5, 9.25, 4, 1.5, 0.5, 0}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['none',0],'denoise':1.0}}",
     0,
     0,
     {0}},
    {"'t':{'class_type':'SplitSigmasDenoise','inputs':{'sigmas':['none',0],'denoise':1.0}}",
     1,
     0,
     {0}},
    {"'t':{'class_type':'FlipSigmas','inputs':{'sigmas':['up',0]}}",
     0,
     6,
     {9.99999975e-05, 0.5, 1.5, 4, 9.25, 14.5}},
    {"'t':{'class_type':'FlipSigmas','inputs':{'sigmas':['open',0]}}", 0, 3, {1, 2, 3}},
    {"'t':{'class_type':'FlipSigmas','inputs':{'sigmas':['none',0]}}", 0, 0, {0}},
    {"'t':{'class_type':'SetFirstSigma','inputs':{'sigmas':['up',0],'sigma':136.0}}",
     0,
     6,
     {136, 9.25, 4, 1.5, 0.5, 0}},
    {"'t':{'class_type':'ExtendIntermediateSigmas','inputs':{'sigmas':['up',0],'steps':3,'start_at_"
     "sigma':-1.0,'end_at_sigma':2.0,'spacing':'linear'}}",
     0,
     12,
     {14.5, 12.75, 11, 9.25, 7.5, 5.75, 4, 3.16666651, 2.33333349, 1.5, 0.5, 0}},
    {"'t':{'class_type':'ExtendIntermediateSigmas','inputs':{'sigmas':['up',0],'steps':4,'start_at_"
     "sigma':9.25,'end_at_sigma':4.0,'spacing':'cosine'}}",
     0,
     12,
     {14.5, 9.25, 7.24091196, 5.53768921, 4.39963245, 4, 3.04329133, 2.23223305, 1.69030118, 1.5,
      0.5, 0}},
    {"'t':{'class_type':'ExtendIntermediateSigmas','inputs':{'sigmas':['up',0],'steps':2,'start_at_"
     "sigma':5.0,'end_at_sigma':0.0,'spacing':'sine'}}",
     0,
     9,
     {14.5, 9.25, 4, 3.26776695, 1.5, 1.20710683, 0.5, 0.353553385, 0}},
    {"'t':{'class_type':'ExtendIntermediateSigmas','inputs':{'sigmas':['none',0],'steps':2,'start_"
     "at_sigma':-1.0,'end_at_sigma':0.0,'spacing':'sine'}}",
     0,
     0,
     {0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'simple','"
     "steps':5,'denoise':1.0}}",
     0,
     6,
     {14.6146412, 5.08776331, 2.27646303, 1.16057837, 0.569284916, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'sgm_"
     "uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {14.6146402, 5.09240818, 2.27973056, 1.16286457, 0.571188867, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'beta','"
     "steps':5,'denoise':1.0}}",
     0,
     6,
     {14.6146412, 7.37184429, 2.61523581, 1.02732933, 0.39550969, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'ddim_"
     "uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {5.13443089, 2.29285383, 1.16821599, 0.574050248, 0.0413144119, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'"
     "scheduler':'simple','steps':5,'denoise':1.0}}",
     0,
     6,
     {4518.76367, 7.41070271, 2.60485482, 1.24137485, 0.594751477, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'"
     "scheduler':'sgm_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {4518.76367, 7.42098522, 2.60918784, 1.24395978, 0.596773803, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'"
     "scheduler':'beta','steps':5,'denoise':1.0}}",
     0,
     6,
     {4518.76367, 14.0480843, 3.06617093, 1.09196281, 0.411380619, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'"
     "scheduler':'ddim_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {7.514359, 2.62660885, 1.25001287, 0.599813461, 0.042067565, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'simple','"
     "steps':5,'denoise':1.0}}",
     0,
     6,
     {14.6146412, 5.08776331, 2.27646303, 1.16057837, 0.569284916, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'sgm_"
     "uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {14.6146402, 5.18272829, 2.34331799, 1.20711744, 0.607616544, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'beta','"
     "steps':5,'denoise':1.0}}",
     0,
     6,
     {14.6146412, 7.48542118, 2.63479567, 1.08672941, 0.43132627, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'ddim_"
     "uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {6.13746119, 2.63479567, 1.32306099, 0.667538524, 0.196302727, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'simple','"
     "steps':5,'denoise':1.0}}",
     0,
     6,
     {4518.76367, 7.41070271, 2.60485482, 1.24137485, 0.594751477, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'sgm_"
     "uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {4518.76367, 7.62739325, 2.69434285, 1.29420269, 0.635536253, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'beta','"
     "steps':5,'denoise':1.0}}",
     0,
     6,
     {4518.76367, 14.4890146, 3.09358048, 1.15827096, 0.448996246, 0}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'ddim_"
     "uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {10.0174513, 3.09358048, 1.42695618, 0.699533641, 0.203421608, 0}},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'simple','steps':5,'denoise':1."
     "0}}",
     0,
     6,
     {1, 0.923076987, 0.818181813, 0.666666687, 0.428571463, 0}},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'sgm_uniform','steps':5,'"
     "denoise':1.0}}",
     0,
     6,
     {1, 0.923342466, 0.818923295, 0.668326676, 0.432225078, 0}},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'beta','steps':5,'denoise':1.0}"
     "}",
     0,
     6,
     {1, 0.955337703, 0.840949059, 0.63093853, 0.298076898, 0}},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'ddim_uniform','steps':5,'"
     "denoise':1.0}}",
     0,
     6,
     {0.92396307, 0.819419265, 0.668514431, 0.431623936, 0.0059760958, 0}},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'simple','steps':5,'"
     "denoise':1.0}}",
     0,
     6,
     {1, 0.873737335, 0.721835971, 0.535603702, 0.301919729, 0}},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'sgm_uniform','steps':5,'"
     "denoise':1.0}}",
     0,
     6,
     {1, 0.873975813, 0.722414136, 0.536678076, 0.303739905, 0}},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'beta','steps':5,'"
     "denoise':1.0}}",
     0,
     6,
     {1, 0.925009668, 0.75302577, 0.496438712, 0.196713477, 0}},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'BasicScheduler','inputs':{'model':['ms',0],'scheduler':'ddim_uniform','steps':5,"
     "'denoise':1.0}}",
     0,
     6,
     {0.875115156, 0.723507404, 0.537674129, 0.304550916, 0.00345495623, 0}},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',"
     "0],'scheduler':'simple','steps':5,'denoise':1.0}}",
     0,
     6,
     {0.99999994, 0.934167624, 0.841804385, 0.702824593, 0.470024914, 0}},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',"
     "0],'scheduler':'sgm_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {0.99999994, 0.934194803, 0.841883063, 0.703009784, 0.470466435, 0}},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',"
     "0],'scheduler':'beta','steps':5,'denoise':1.0}}",
     0,
     6,
     {0.99999994, 0.962002575, 0.861751556, 0.668856621, 0.332239687, 0}},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms',"
     "0],'scheduler':'ddim_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {0.934244514, 0.841915309, 0.702998638, 0.470336169, 0.000709143642, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'BasicScheduler','inputs'"
     ":{'model':['ms',0],'scheduler':'simple','steps':5,'denoise':1.0}}",
     0,
     6,
     {120.000008, 13.2615538, 1.46557343, 0.161964819, 0.0178992078, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'BasicScheduler','inputs'"
     ":{'model':['ms',0],'scheduler':'sgm_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {120.000008, 13.2907982, 1.47204411, 0.163038582, 0.0180576053, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'BasicScheduler','inputs'"
     ":{'model':['ms',0],'scheduler':'beta','steps':5,'denoise':1.0}}",
     0,
     6,
     {120.000008, 30.9656639, 2.22719932, 0.107758634, 0.00775052002, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'BasicScheduler','inputs'"
     ":{'model':['ms',0],'scheduler':'ddim_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {13.5568972, 1.4982127, 0.165571883, 0.0182978399, 0.00202214764, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms'"
     ",0],'scheduler':'simple','steps':5,'denoise':1.0}}",
     0,
     6,
     {80, 13.233983, 2.18922877, 0.362152785, 0.059909042, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms'"
     ",0],'scheduler':'sgm_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {80, 13.2578173, 2.19712138, 0.364112794, 0.0603417568, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms'"
     ",0],'scheduler':'beta','steps':5,'denoise':1.0}}",
     0,
     6,
     {80, 26.4563141, 3.08146381, 0.259616882, 0.0302385278, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'BasicScheduler','inputs':{'model':['ms'"
     ",0],'scheduler':'ddim_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {13.4742508, 2.22897482, 0.368727744, 0.0609967113, 0.0100903651, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'cosmos_"
     "rflow','sigma_max':80.0,'sigma_min':0.002}},'t':{'class_type':'BasicScheduler','inputs':{'"
     "model':['ms',0],'scheduler':'simple','steps':5,'denoise':1.0}}",
     0,
     6,
     {80, 9.58863354, 1.14927351, 0.137749463, 0.0165103655, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'cosmos_"
     "rflow','sigma_max':80.0,'sigma_min':0.002}},'t':{'class_type':'BasicScheduler','inputs':{'"
     "model':['ms',0],'scheduler':'beta','steps':5,'denoise':1.0}}",
     0,
     6,
     {80, 21.7005119, 1.71979523, 0.0930343419, 0.00737309782, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'BasicScheduler','inputs':"
     "{'model':['ms',0],'scheduler':'simple','steps':5,'denoise':1.0}}",
     0,
     6,
     {500.000061, 71.4093475, 10.1985846, 1.45654953, 0.20802246, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'BasicScheduler','inputs':"
     "{'model':['ms',0],'scheduler':'sgm_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {499.986908, 3.12437367, 1.4081037, 0.753148556, 0.35120967, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'BasicScheduler','inputs':"
     "{'model':['ms',0],'scheduler':'beta','steps':5,'denoise':1.0}}",
     0,
     6,
     {500.000061, 151.064636, 14.7615128, 1.0161562, 0.0992952436, 0}},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'BasicScheduler','inputs':"
     "{'model':['ms',0],'scheduler':'ddim_uniform','steps':5,'denoise':1.0}}",
     0,
     6,
     {72.812706, 10.3990116, 1.4851743, 0.212110594, 0.0302933473, 0}},
};

static const percent_case percent_cases[] = {
    {"'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['m',0],'sampling_percent':0.0,'"
     "return_actual_sigma':false}}",
     1.0},
    {"'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['m',0],'sampling_percent':0.0,'"
     "return_actual_sigma':true}}",
     1.0},
    {"'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['m',0],'sampling_percent':1.0,'"
     "return_actual_sigma':true}}",
     0.00031575115281157196},
    {"'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['m',0],'sampling_percent':0.35,"
     "'return_actual_sigma':true}}",
     0.8543381465555098},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':0.3,'return_actual_sigma':false}}",
     3.325068950653076},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':1.0,'return_actual_sigma':true}}",
     0.029167158529162407},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',"
     "0],'sampling_percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',"
     "0],'sampling_percent':0.3,'return_actual_sigma':false}}",
     4.1204705238342285},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','zsnr':true}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',"
     "0],'sampling_percent':1.0,'return_actual_sigma':true}}",
     0.029167158529162407},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':0.3,'return_actual_sigma':false}}",
     3.3251163959503174},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "false}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':1.0,'return_actual_sigma':true}}",
     0.13445067405700684},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':0.3,'return_actual_sigma':false}}",
     4.12062406539917},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'lcm','zsnr':"
     "true}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_"
     "percent':1.0,'return_actual_sigma':true}}",
     0.1391298919916153},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_percent':0.0,'return_"
     "actual_sigma':false}}",
     1.0},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_percent':0.3,'return_"
     "actual_sigma':false}}",
     0.8749999999999999},
    {"'ms':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},'t':{'class_"
     "type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_percent':1.0,'return_"
     "actual_sigma':true}}",
     0.002994012087583542},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_percent':0.0,'"
     "return_actual_sigma':false}}",
     1.0},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_percent':0.3,'"
     "return_actual_sigma':false}}",
     0.801455989410986},
    {"'ms':{'class_type':'ModelSamplingAuraFlow','inputs':{'model':['m',0],'shift':1.73}},'t':{'"
     "class_type':'SamplingPercentToSigma','inputs':{'model':['ms',0],'sampling_percent':1.0,'"
     "return_actual_sigma':true}}",
     0.0017287380760535598},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model'"
     ":['ms',0],'sampling_percent':0.0,'return_actual_sigma':false}}",
     1.0},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model'"
     ":['ms',0],'sampling_percent':0.3,'return_actual_sigma':false}}",
     0.8922130023644109},
    {"'ms':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.3,'base_shift'"
     ":0.4,'width':832,'height':1216}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'model'"
     ":['ms',0],'sampling_percent':1.0,'return_actual_sigma':true}}",
     0.00035466207191348076},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'SamplingPercentToSigma',"
     "'inputs':{'model':['ms',0],'sampling_percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'SamplingPercentToSigma',"
     "'inputs':{'model':['ms',0],'sampling_percent':0.3,'return_actual_sigma':false}}",
     4.42319291496207},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':120.0,'sigma_min':0.002}},'t':{'class_type':'SamplingPercentToSigma',"
     "'inputs':{'model':['ms',0],'sampling_percent':1.0,'return_actual_sigma':true}}",
     0.001999999862164259},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'"
     "model':['ms',0],'sampling_percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'"
     "model':['ms',0],'sampling_percent':0.3,'return_actual_sigma':false}}",
     5.397131354503664},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'edm','"
     "sigma_max':80.0,'sigma_min':0.01}},'t':{'class_type':'SamplingPercentToSigma','inputs':{'"
     "model':['ms',0],'sampling_percent':1.0,'return_actual_sigma':true}}",
     0.009999999776482582},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'cosmos_"
     "rflow','sigma_max':80.0,'sigma_min':0.002}},'t':{'class_type':'SamplingPercentToSigma','"
     "inputs':{'model':['ms',0],'sampling_percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'cosmos_"
     "rflow','sigma_max':80.0,'sigma_min':0.002}},'t':{'class_type':'SamplingPercentToSigma','"
     "inputs':{'model':['ms',0],'sampling_percent':0.3,'return_actual_sigma':false}}",
     3.330212760754133},
    {"'ms':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':'cosmos_"
     "rflow','sigma_max':80.0,'sigma_min':0.002}},'t':{'class_type':'SamplingPercentToSigma','"
     "inputs':{'model':['ms',0],'sampling_percent':1.0,'return_actual_sigma':true}}",
     0.001999999862164259},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'SamplingPercentToSigma','"
     "inputs':{'model':['ms',0],'sampling_percent':0.0,'return_actual_sigma':false}}",
     999999999.9},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'SamplingPercentToSigma','"
     "inputs':{'model':['ms',0],'sampling_percent':0.3,'return_actual_sigma':false}}",
     27.065460060038514},
    {"'ms':{'class_type':'ModelSamplingContinuousV','inputs':{'model':['m',0],'sampling':'v_"
     "prediction','sigma_max':500.0,'sigma_min':0.03}},'t':{'class_type':'SamplingPercentToSigma','"
     "inputs':{'model':['ms',0],'sampling_percent':1.0,'return_actual_sigma':true}}",
     0.029999999329447746},
};

// AddNoise of RandomNoise(5) to latents of sin(0.37 i) * 2, [1, 16, 2, 3]
static const noise_case noise_cases[] = {
    {"'t':{'class_type':'AddNoise','inputs':{'model':['m',0],'noise':['no',0],'sigmas':['up',0],'"
     "latent_image':['x',0]}}",
     {75.6594543, -55.4127464, 12.3780422, 15.7350254, -81.4647675, 42.934063}},
    {"'t':{'class_type':'AddNoise','inputs':{'model':['m',0],'noise':['no',0],'sigmas':['one',0],'"
     "latent_image':['z',0]}}",
     {12.8708839, -6.5654912, 6.601614, 6.1889286, -13.5038967, 4.62903023}},
    {"'ms':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':'eps','zsnr':"
     "false}},'t':{'class_type':'AddNoise','inputs':{'model':['ms',0],'noise':['no',0],'sigmas':['"
     "open',0],'latent_image':['x',0]}}",
     {10.2039871, -3.98650408, 7.18261909, 6.42650318, -10.5883942, 2.49366283}},
};
