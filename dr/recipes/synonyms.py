"""What other programs call the options of a recipe and their values: timm, ultralytics, Keras, Lightning, fastai."""

import difflib
from collections.abc import Iterable

# option, or the remedy in words: the names it has elsewhere, without case, hyphens and underscores
_OPTIONS = {
    "backbone": "model arch architecture network net encoder modelname basemodel modeltype feature",
    "pretrained": "weights checkpoint ckpt initcheckpoint finetune pretrainedweights pretrainedpath initialweights",
    "freeze": "freezebackbone freezeencoder linearprobe frozen trainable",
    "head": "classifier fc headtype",
    "dropout": "drop droprate dropoutrate dropprob dropoutprob headdropout pdrop",
    "activation": "act actlayer",
    "pooling": "pool globalpool gp",
    "stochastic_depth": "droppath droppathrate dpr dropconnect survivalprob stochasticdepthprob stochasticdepthrate",
    "normalisation": "normalization normalize normalise norm",
    "objective": "task problem problemtype losstype target tasktype",
    "loss": "criterion lossfn lossfunc lossfunction lossname",
    "focal_gamma": "gammafocal flgamma focallossgamma",
    "class_weights": "classweight weightedloss posweight lossweights cwts",
    "label_smoothing": "smoothing labelsmooth smooth ls labelsmoothingfactor eps",
    "neighbour_smoothing": "neighborsmoothing ordinalsmoothing softlabels",
    "mixup": "mixupalpha mixupprob mix",
    "cutmix": "cutmixalpha cutmixprob",
    "image_size": "imgsz imgsize imagesz imsize inputsize inputresolution inputshape size resolution resize targetsize "
    "sz imagewidth imageheight width height presize",
    "crop_size": "crop centercrop randomcrop cropsz croppx",
    "augmentation": "aug augment augmentations augs dataaug dataaugmentation transforms transform autoaugment aa "
    "randaugment trivialaugment itemtfms batchtfms",
    "sampling": "sampler oversampling oversample weightedsampler balanced balance classbalanced resampling undersample "
    "balancedsampler weightedsampling",
    "batch_size": "batch bs bsz batchsz trainbatchsize perdevicetrainbatchsize minibatch minibatchsize",
    "accumulate": "gradaccum gradaccumsteps gradientaccumulation gradientaccumulationsteps accumgradbatches accumiter "
    "accumulation accumsteps accumulationsteps nbs",
    "grad_checkpointing": "gradientcheckpointing checkpointing gradcheckpoint gradckpt",
    "epochs": "epoch maxepochs nepochs numepochs nepoch numtrainepochs nbepochs trainepochs",
    "optimizer": "opt optim optimiser optname optfunc optimizername",
    "lr": "learningrate lr0 baselr blr initlr initiallr learnrate lrate lrmax maxlr eta eta0 alpha headlr backbonelr",
    "layer_decay": "llrd layerwiselrdecay layerlrdecay layerdecayrate layerwisedecay discriminativelr",
    "weight_decay": "wd decay l2 l2reg weightdecayrate regularization",
    "momentum": "mom moms sgdmomentum",
    "scheduler": "sched schedule lrscheduler lrsched lrschedule lrpolicy lrschedulertype decaytype",
    "step_epochs": "stepsize lrstepsize decayepochs lrstep lrdecayepochs",
    "milestones": "decaymilestones lrsteps lrmilestones steps",
    "gamma": "lrgamma decayrate factor lrdecay lrfactor lrf",
    "plateau_epochs": "lrpatience patienceepochs plateaupatience schedulerpatience",
    "warmup_fraction": "warmup warmupepochs warmupsteps warmupratio warmuppct pctstart warmuplr numwarmupsteps",
    "ema_decay": "ema modelema modelemadecay emamomentum useema",
    "clip_norm": "clip clipgrad gradclip gradientclip gradientclipval maxgradnorm clipgradnorm maxnorm clipnormvalue",
    "precision": "amp fp16 bf16 fp32 half mixedprecision usefp16 useamp dtype autocast ampdtype halfprecision",
    "seed": "randomseed randomstate manualseed randseed rngseed",
    "monitor": "metric selectby checkpointmetric evalmetric bestmetric metricforbestmodel watch valmetric",
    "patience": "earlystopping earlystop earlystoppingpatience stoppingpatience espatience",
    "thresholds": "cuts threshold thresh coefficients cutoffs optimizedrounder",
    "tta": "testtimeaugmentation ttaflips ttatransforms usetta",
    "--workers": "workers numworkers nworkers jobs threads",
    "--device": "device gpu gpus cuda accelerator",
    "--data": "data datadir datapath dataset dataroot traindir root",
    "--save": "output outputdir outdir savedir save project logdir",
    "--name": "name runname expname experiment",
    "--log": "log logger wandb tensorboard mlflow",
    "--fold": "fold folds kfold nfolds",
    "omit it: the classes are those of the data": "numclasses nclasses nbclasses classes nc numlabels",
    "--val_fraction of data.py": "valsplit valfraction validationsplit valsize testsize valpct",
}  # fmt: skip
_VALUES = {
    "loss": {
        "cross_entropy": "ce crossentropyloss categoricalcrossentropy sparsecategoricalcrossentropy nll softmax xent",
        "bce": "binarycrossentropy bcewithlogits bcewithlogitsloss bcelogits sigmoid coral corn",
        "focal": "focalloss fl sigmoidfocal",
        "l1": "mae l1loss meanabsoluteerror",
        "mse": "l2 mseloss meansquarederror rmse",
        "smooth_l1": "huber smoothl1loss huberloss",
    },
    "scheduler": {
        "step": "steplr",
        "multistep": "multisteplr",
        "exponential": "exp exponentiallr expdecay",
        "plateau": "reducelronplateau reduceonplateau reducelr",
        "cosine": "cos coslr cosinelr cosineannealing cosineannealinglr cosineannealingwarmrestarts cosinewarmup "
        "onecycle onecyclelr poly linear cosinedecay",
        "none": "constant fixed constantlr null",
    },
    "optimizer": {
        "adamw": "radam nadam nadamw lamb lion adabelief adamax adan",
        "sgd": "momentum nesterov sgdm sgdp",
        "rmsprop": "rmsproptf",
    },
    "objective": {
        "classification": "multiclass softmax categorical crossentropy ce classify",
        "ordinal": "coral corn ordinalregression rank ranking corral",
        "binary": "sigmoid referable bce twoclass",
        "regression": "mse regress score continuous",
    },
    "sampling": {
        "shuffle": "random none false natural",
        "balanced": "weighted oversample uniform classbalanced balance true equal",
        "sqrt": "squareroot root",
    },
    "class_weights": {"inverse": "balanced balance auto true frequency weighted", "none": "false uniform"},
    "precision": {
        "fp16": "16 float16 half amp 16mixed mixed mixedfloat16",
        "bf16": "bfloat16 bf16mixed mixedbfloat16",
        "fp32": "32 float32 full 32true false single",
    },
    "monitor": {
        "macro_f1_cross_fitted": "f1 macrof1 f1macro f1score valf1",
        "kappa_cross_fitted": "kappa qwk quadraticweightedkappa quadratickappa valkappa valqwk cohenkappa",
        "accuracy": "acc valacc valaccuracy top1",
        "auc": "auroc rocauc valauc",
        "val_loss": "loss validloss validationloss",
    },
    "thresholds": {"round": "fixed rounding default", "optimal": "optimized optimised best f1", "kappa": "qwk"},
    "tta": {
        "flips": "true flip hflip yes horizontal",
        "d4": "8 eight dihedral rotations all",
        "five": "5 fivecrop",
        "ten": "10 tencrop",
        "none": "false no 0",
    },
    "freeze": {"backbone": "true all encoder yes body", "none": "false no"},
    "normalisation": {"backbone": "imagenet true default"},
    "pooling": {"default": "avg mean average max gap"},
    "augmentation": {"none": "false no off", "flips": "flip hflip basic"},
}


def plain(word: str) -> str:
    """A name without case, hyphens, underscores, dots and blanks, as two spellings of it are compared."""
    return "".join(character for character in word.casefold() if character.isalnum())


def _inverted(table: dict[str, str]) -> dict[str, str]:
    return {word: target for target, words in table.items() for word in words.split()}


_OPTION_OF = _inverted(_OPTIONS)
_VALUE_OF = {option: _inverted(table) for option, table in _VALUES.items()}


def option_of(word: str, options: Iterable[str]) -> str | None:
    """The one option that `word` can be, by its spelling or its name elsewhere; also a flag as `--workers`, or a remedy
    in words. None for others."""
    word = plain(word)
    return next((option for option in options if plain(option) == word), _OPTION_OF.get(word))


def nearest_options(word: str, options: Iterable[str]) -> list[str]:
    """`option_of`, else up to three options with similar names."""
    options, word = list(options), word[:60]
    known = option_of(word, options)
    return [known] if known else difflib.get_close_matches(word.casefold(), options, n=3, cutoff=0.4)


def nearest_value(option: str, value: object, allowed: Iterable[str]) -> str | None:
    """The allowed value of an option that `value` most probably means; None if none is near."""
    allowed, word = list(allowed), plain(str(value)[:60])
    same = next((known for known in allowed if plain(known) == word), None)
    close = difflib.get_close_matches(str(value)[:60].casefold(), allowed, n=1, cutoff=0.6)
    return same or _VALUE_OF.get(option, {}).get(word) or (close[0] if close else None)
