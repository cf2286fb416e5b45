"""How scripts read what trtexec prints: by grep, by regular expressions, by counting fields."""

import re

SECONDS = "--duration=0", "--warmUp=0"


def prefixed(text: str) -> list[str]:
    """The texts of the lines of a log that have a prefix of two words."""
    return re.findall(r"(?m)^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[[IVWE]\] (.*)$", text)


def passed(text: str) -> bool:
    """``grep -q '&&&& PASSED TensorRT.trtexec'``."""
    return any(line.startswith("&&&& PASSED TensorRT.trtexec") for line in text.splitlines())


def throughput(text: str) -> float:
    """By a regular expression."""
    return float(re.search(r"Throughput:\s*([\d.]+(?:e[+-]?\d+)?)\s*qps", text)[1])


def compute(text: str, what: str) -> float:
    """The mean or the median of computing, by a regular expression."""
    return float(re.search(rf"GPU Compute Time:.*?{what}\s*=\s*([\d.]+(?:e[+-]?\d+)?)", text)[1])


def row(text: str, name: str) -> dict[str, float]:
    """A row of the summary, every figure by its name."""
    (line,) = [line for line in text.splitlines() if f"[I] {name}: min = " in line]
    figures = re.findall(r"(min|max|mean|median|percentile\([\d.]+%\)) = (\S+) ms", line)
    return {re.sub(r"percentile\((.*)%\)", r"p\1", what): float(value) for what, value in figures}


def sixteenth_field(text: str) -> float:
    """``grep "GPU.* mean.*ms$" | awk '{print $16}'``: the mean of computing."""
    (line,) = [line for line in text.splitlines() if re.search(r"GPU.* mean.*ms$", line)]
    return float(line.split()[15])


def averages(text: str) -> list[float]:
    """The means of some inferences each."""
    return [float(ms) for ms in re.findall(r"Average on \d+ runs - GPU latency: (\S+) ms - Host latency: \S+ ms", text)]


def six_digits(value: float) -> float:
    """As it is printed."""
    return float(f"{value:.6g}")
