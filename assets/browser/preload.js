// Start to load the model while Streamlit's own code is still loading. The server adds this to the page that opens on Live:
// see first_page in app.py.

import { canRunModel, devicePredictor } from "./predictor.js";

const settings = JSON.parse(document.querySelector("#handful-model").textContent);
const readsOnServer = new URLSearchParams(location.search).get("read") === "server";
if (canRunModel() && !readsOnServer) devicePredictor(settings).load().catch(() => {}); // Live tries again, and says why
