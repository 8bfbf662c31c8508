"""About page: what Handful is, what happens to images, what it cannot do, model card, API and source."""

import os
import re
from pathlib import Path

import streamlit as st

CARD = Path(__file__).parents[1] / "model/MODEL_CARD.md"


def model_card() -> str:
    """Return the model card below its title, with headings two levels down and without links to files."""
    text = CARD.read_text(encoding="utf-8").partition("\n")[2]
    text = re.sub(r"^#", "###", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


st.title("About")
st.write(
    "Handful finds the hands in view, counts the raised fingers of each, 0 to 5, and tells left hands from right ones: "
    "on a webcam, in pictures and in videos. It runs on one core of a computer, or in a browser, and shows where it "
    "looked."
)

st.header("Privacy")
st.markdown(
    "- **Live, on this device:** the model runs in your browser. No image leaves your device.\n"
    "- **Live, on the server:** video frames travel to the server, are processed in its memory and are not stored.\n"
    "- **Pictures and Videos:** files are processed on the server, and are gone when you leave or close the page. They "
    "are stored nowhere else.\n"
    "- **Teach:** pictures stay in your browser, until you reload or close the page. On this device, only numbers "
    "computed from them go to the server, which learns from these; on the server, each picture goes there once. It "
    "keeps neither. What was learned stays in your browser, too: until you reload or close the page, or for as long as "
    "you want.\n"
    "- **Log and statistics** hold numbers, such as the size of an image and how many hands were found: no images, no "
    "file names, no addresses. Nothing is sent to third parties."
)

st.header("What it cannot do")
st.markdown(
    "- **Thumbs that point down** are often missed, as is the sign for a phone call: thumb and little finger.\n"
    "- **Open hands with the fingers together** may count as four: a thumb along the palm is hard to see.\n"
    "- **Hands seen from the side**, or fingers behind each other, are often counted wrong.\n"
    "- **Far away**, from about twice the usual distance to a webcam, and **in the dark**, some hands "
    "are missed.\n"
    "- **At most four hands** are counted.\n"
    "- **Skin tones** were compared on rendered hands only: how well it works on real hands of each tone is not "
    "known.\n\n"
    "It is made for fun, teaching and simple interfaces. Do not use it for sign language, to identify people, or where "
    "a miscount can do harm. [Evaluation](evaluation) has the measurements."
)

st.header("For developers")
st.write(
    "The same model answers over HTTP, on the command line (`python -m handful photo.jpg`) and as a Python library."
)
with st.container(horizontal=True):
    st.link_button("API reference", "api/docs", icon=":material/api:")
    if space := os.environ.get("SPACE_ID"):  # set by Hugging Face Spaces
        st.link_button("Source", f"https://huggingface.co/spaces/{space}/tree/main", icon=":material/code:")
st.caption(
    "Handful is open source under the Apache License 2.0. Its README, in the folder that this app runs from, says how "
    "to use, train and deploy it, and whose pictures it has learned from."
)

st.header("Model card")
with st.expander("How it works, data, training, results and limitations", icon=":material/description:"):
    st.markdown(model_card())
