"""What to use instead of a flag that a command does not have: its own flag, a recipe option, or another command."""

import argparse
import difflib
import itertools
import re
import shlex

from dr.recipes.load import available
from dr.recipes.schema import FIELDS, short
from dr.recipes.synonyms import option_of, plain

DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"  # word processors turn hyphens into these
# For each command, what to use: the names it has elsewhere, without case, hyphens and underscores. A value that was
# passed replaces {...}
_FLAGS = {
    "data": {
        "-m {PATH}": "input inputs in i image images imagedir imagesdir imgdir imagefolder dataset datadir datapath "
        "data dataroot src source path archive zip main train traindir trainimages trainzip folder archives file url",
        "-a {PATH}": "extra extrazip zipextra extradata 2015 additional zip2015archive",
        "--table {NAME}": "labels labelsfile labelfile csv labelscsv labelcsv annotations annotation traincsv csvfile "
        "metadata trainlabels l",
        "-d {FOLDER}": "output out o outdir outputdir outputfolder dest destination save savedir s target",
        "--id_column {NAME}": "idcol imagecolumn imagecol filenamecolumn filecolumn pathcolumn xcol imagename idname",
        "--label_column {NAME}": "labelcol targetcolumn targetcol ycol gradecolumn classcolumn labelname grade",
        "--patient_column {NAME}": "patientcol patientid group groupcolumn groups groupby subject subjectcolumn",
        "--size {PIXELS}": "imgsz imgsize imagesize imsize resolution resize targetsize px pixels inputsize width "
        "height",
        "--val_fraction {SHARE}": "valsplit validationsplit valsize testsize valratio split testsplit valpct "
        "validationfraction holdout trainsplit valshare",
        "--per_class {N}": "balance balanced nperclass perclasscount maxperclass samplesperclass limit n",
        "--workers {N}": "numworkers nworkers w j jobs njobs threads numprocesses processes nproc",
        "--force": "overwrite f y yes replace existok",
        "--no_crop": "skipcrop nocropping withoutcrop",
        "--ungradable keep": "keepungradable includeungradable",
        "--ungradable drop": "dropungradable",
        "--seed {N}": "randomstate randomseed",
        "omit it: cropping is the default, --no_crop turns it off": "crop cropping autocrop",
        "omit it: data.py runs on the CPU": "device gpu gpus cuda cpu",
        "--fold of train.py": "fold folds kfold nfolds cv k",
    },
    "train": {
        "-d {FOLDER}": "input inputs i datadir datapath dataset dataroot root train traindir trainpath trainfolder "
        "images imagedir zip path source",
        "-s {FOLDER}": "output out o outdir outputdir savedir logdir weightsdir checkpointdir workdir project savepath "
        "modeldir dest",
        "-n {NAME}": "runname expname experiment exp jobname experimentname tag",
        "-r {RECIPE}": "config cfg c recipefile yaml configfile configname preset",
        "--set {KEY=VALUE}": "option options opts override overrides hparams hyperparameters param params",
        "-b {N}": "batch bs bsz trainbatchsize perdevicetrainbatchsize minibatch",
        "-e {N}": "maxepochs nepochs numepochs nepoch numtrainepochs ep",
        "--pretrained {PATH}": "checkpoint ckpt weights loadweights initcheckpoint finetune pretrainedweights initfrom "
        "loadfrom init load pretrainedmodel pretrainedpath",
        "--pretrained none": "nopretrained scratch fromscratch notpretrained",
        "--resume": "continue restart resumefrom autoresume resumetraining",
        "--fold 1/{N}": "folds kfold nfolds cv crossval crossvalidation nsplits splits",
        "--sweep {KEY=VALUE,VALUE}": "grid gridsearch search tune hpo sweeps",
        "--workers {N}": "numworkers nworkers w j jobs njobs threads",
        "--log {TRACKER}": "logger tracker reportto logto",
        "--log wandb": "wandb",
        "--log tensorboard": "tensorboard tb",
        "--log mlflow": "mlflow",
        "--list backbones": "models listmodels listbackbones backbones architectures",
        "--list recipes": "recipes listrecipes presets",
        "--list options": "listoptions showoptions helpoptions",
        "--device cuda": "gpu cuda gpuid",
        "--device cpu": "cpu nogpu nocuda",
        "--device mps": "mps",
        "torchrun --nproc_per_node {N} train.py": "gpus ngpus numgpus nproc nprocpernode distributed ddp multigpu",
        "--set precision=fp16": "amp fp16 half mixedprecision",
        "--set precision=bf16": "bf16 bfloat16",
        "--set precision=fp32": "fp32 noamp",
        "--set freeze=backbone": "freezebackbone linearprobe freezeencoder",
        "--set augmentation=none": "noaug noaugmentation noaugment",
        "--set amsgrad=false": "noamsgrad",
        "predict.py": "predict test eval evaluate inference validate",
        "--val_fraction of data.py": "valsplit valsize validationsplit testsize valratio valdir valfraction",
        "--compare": "leaderboard summary results",
        "--keep_last": "savelast keepcheckpoint",
    },
    "predict": {
        "-m {PATH}": "checkpoint checkpoints weights ckpt ckptpath modelpath modelfile w load models loadweights net "
        "network pretrained resume",
        "-i {PATH}": "input inputs in imagedir imagesdir imgdir imagefolder imagepath data datadir dataset d source "
        "folder src path img imgs testdir test testimages file directory zip photo photos",
        "-o {FOLDER}": "out outdir outputdir save s dest destination savedir result results resultsdir outputfolder",
        "--labels {CSV}": "truth groundtruth gt csv labelscsv labelfile labelsfile ytrue annotations testcsv",
        "--submission {SAMPLE_CSV}": "samplesubmission sample ids submissioncsv samplecsv",
        "--export {ONNX}": "onnx exportonnx toonnx exportpath",
        "--explain {N}": "gradcam heatmap heatmaps cam explanations saliency",
        "--explain 0": "nogradcam noheatmaps noexplain nocam",
        "--no_report": "nohtml withoutreport",
        "--prevalence {SHARES}": "prior priors classprior",
        "--tta flips": "augment testtimeaugmentation flips",
        "--tta d4": "rotations",
        "--engine openvino": "openvino",
        "--engine torch": "pytorch",
        "--engine {ENGINE}": "backend runtime",
        "-b {N}": "batch bs bsz minibatch",
        "--workers {N}": "numworkers nworkers j jobs njobs threads",
        "--device cuda": "gpu gpus cuda gpuid",
        "--device cpu": "cpu nogpu nocuda",
        "--device mps": "mps",
        "omit it: the checkpoint has its thresholds": "threshold cuts thresh coefficients conf confidence",
        "omit it: the checkpoint has its classes": "numclasses classes nc",
    },
}  # fmt: skip


def _table(script: str) -> dict[str, str]:
    return {word: remedy for remedy, words in _FLAGS.get(script, {}).items() for word in words.split()}


def refusal(
    rest: list[str], given: list[str], *, script: str | None, parsers: dict[str | None, argparse.ArgumentParser]
) -> str:
    """The arguments that no flag takes, `rest` of `given` -> the faults and the remedies, in one line. `parsers` are
    those of all commands; a `script` of None has no suggestions."""
    flags, others, remedies = [], [], []
    pending = [text for text in rest if text != "--"]
    while pending:
        text = pending.pop(0)
        if not _is_flag(text):
            others.append(_shown(text))
            remedies.append(None if script is None else _positional(text, script, given, parsers[script]))
            continue
        flag, _, value = text.partition("=")
        if not value and pending and not _is_flag(pending[0]) and (text, pending[0]) in itertools.pairwise(given):
            value = pending.pop(0)
        flags.append(_shown(flag))
        remedies.append(_remedy(flag.lstrip(DASHES), value, script, parsers))
    faults = [
        f"{fault}{'s' if len(texts) > 1 else ''} {', '.join(texts)}"
        for fault, texts in (("unrecognised flag", flags), ("unexpected argument", others))
        if texts
    ]
    return "; ".join([" and ".join(faults), *dict.fromkeys(filter(None, remedies))])


def is_known(name: str, script: str | None, parser: argparse.ArgumentParser) -> bool:
    """Whether `name` is that of a long flag, its beginning of three letters or more, or a flag of another program."""
    return _flag_of(name, parser) is not None or plain(name) in _table(script)


def _is_flag(text: str) -> bool:
    is_number = re.fullmatch(r"-[0-9.]+(e[-+]?[0-9]+)?", text, re.IGNORECASE)
    return len(text) > 1 and text[0] in DASHES and not is_number


def _shown(text: str) -> str:
    """An argument in an error: as it is, if it is short and printable."""
    return text if text.isprintable() and 0 < len(text) <= 60 else short(text)


def _long_flags(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def _flag_of(name: str, parser: argparse.ArgumentParser) -> str | None:
    """The flag of `parser` that is written like `name` but for case, hyphens and underscores, or alone begins so."""
    word = plain(name)
    begun = [flag for flag in _long_flags(parser) if len(word) > 2 and plain(flag).startswith(word)]
    same = [flag for flag in _long_flags(parser) if plain(flag) == word]
    return same[0] if same else begun[0] if len(begun) == 1 else None


def _filled(remedy: str, value: str | None) -> str:
    """'-m {PATH}', 'a b.zip' -> "use -m 'a b.zip'"."""
    if value and remedy == "--device cuda" and value.isdecimal():
        remedy += f":{value}"
    text = re.sub(r"\{(.*?)\}", lambda found: _quoted(value) if value else found[1], remedy)
    return text if text.startswith("omit it") else f"use {text}"


def _as_option(name: str, value: str | None) -> str | None:
    """The recipe option that a flag means, as a flag of train.py."""
    option = option_of(name, FIELDS)
    if option in FIELDS:
        return _filled(f"--set {option}={{VALUE}}", value)
    return option if option and not option.startswith("--") else None


def _remedy(
    name: str, value: str | None, script: str | None, parsers: dict[str | None, argparse.ArgumentParser]
) -> str | None:
    """What to use instead of a flag called `name`, which `parsers[script]` has not; None if nothing is near."""
    parser = parsers[script]
    flag, option = _flag_of(name, parser), _as_option(name, value)
    if flag:
        return _filled(_with_value(flag, parser), value)
    if plain(name) in _table(script):
        return _filled(_table(script)[plain(name)], value)
    if script == "train" and option:
        return option
    others = [other for other, its in parsers.items() if other != script and _has(name, its)]
    if script == "predict" and (option or "train" in others):
        return "omit it: the checkpoint has its recipe"
    if script is None or others or option:
        return f"a flag of {others[0]}.py" if others else f"{option} of train.py" if option else None
    names = [known[2:] for known in _long_flags(parser)] + (list(FIELDS) if script == "train" else [])
    close = difflib.get_close_matches(name.casefold().replace("-", "_")[:60], names, n=1, cutoff=0.6)
    if not close:
        return None
    near = f"--{close[0]}"
    return _filled(_with_value(near, parser), value) if near in _long_flags(parser) else _as_option(close[0], value)


def _with_value(flag: str, parser: argparse.ArgumentParser) -> str:
    """'--epochs' -> '--epochs {N}' for `_filled`, if the flag takes a value."""
    action = parser._option_string_actions[flag]
    if action.nargs == 0:
        return flag
    return f"{flag} {{{action.metavar if isinstance(action.metavar, str) else action.dest.upper()}}}"


def _has(name: str, parser: argparse.ArgumentParser) -> bool:
    """Whether `parser` has the flag: a letter, or a whole word."""
    return any(plain(flag) == plain(name) for action in parser._actions for flag in action.option_strings)


def _positional(text: str, script: str, given: list[str], parser: argparse.ArgumentParser) -> str:
    """What to use for an argument that follows no flag."""
    quoted, at = _quoted(text), given.index(text) if text in given else 0
    before = parser._option_string_actions.get(given[at - 1]) if at else None
    if before is not None and before.nargs == 0:
        return f"{given[at - 1]} takes no value; omit it"
    if text.startswith("=") or (at and given[at - 1].endswith("=")):
        return "write KEY=VALUE without blanks"
    if at > 1 and given[at - 2] in ("--set", "--sweep") and "=" not in given[at - 1] + text:
        return f"use {given[at - 2]} {_shown(given[at - 1])}={quoted}"
    if script == "train" and "=" in text:
        key, _, value = text.partition("=")
        return _as_option(key, value) or f"use --set {quoted}"
    if script == "train":
        return f"use -r {quoted}" if text.endswith(".toml") or text in available() else f"use -d {quoted}"
    if script == "predict" and text.endswith((".pt", ".pth")):
        return f"use -m {quoted}"
    return f"use {'-m' if script == 'data' else '-i'} {quoted}"


def _quoted(text: str) -> str:
    """An argument as the shell takes it, in one line."""
    return shlex.quote(text) if _shown(text) == text else _shown(text)
