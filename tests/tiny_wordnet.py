"""A WordNet of a few words, written by hand in the format of its dictionary files (wndb(5WN))."""

WORDS = {
    "noun": {
        "plot": ["a secret scheme to do something", "a small piece of ground"],
        "film": ["a story told by moving pictures"],
        "fox": ["a wild animal with a bushy tail"],
    },
    "verb": {"plot": ["make a plan"], "run": ["move fast on foot"]},
    "adj": {"dull": ["lacking in liveliness"]},
    "adv": {"slowly": ["at a slow pace"]},
}
IRREGULAR = {"verb": "ran run\n"}
_LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_HEADER = "  1 This is a dictionary for tests, WordNet 9.9 Copyright nobody.  \n"


def write_wordnet(folder):
    """Write the files, and return the folder. Synsets are found by their place in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, words in WORDS.items():
        data, index = _HEADER, _HEADER
        for word, definitions in words.items():
            places = []
            for text in definitions:
                places.append(f"{len(data):08d}")
                frames = "00 " if part == "verb" else ""
                data += f"{places[-1]} 03 {_LETTER[part]} 01 {word} 0 000 {frames}| {text}  \n"
            count = len(places)
            index += f"{word} {_LETTER[part]} {count} 0 {count} 0 {' '.join(places)}  \n"
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(index)
        (folder / f"{part}.exc").write_text(IRREGULAR.get(part, ""))
    return folder
