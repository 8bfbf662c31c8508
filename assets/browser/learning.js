// Fitting a personal head, on the server: see web/teach.py. It gets the features of pictures, never the pictures.

const TIMEOUT_MS = 60_000;

// Fit a head to pictures, {target, round, candidates}. Returns {head: the text of its file, before, after: whether each
// picture is predicted as labelled}. Throws "ServerBusy", "Offline" or, with words for the visitor, "CannotLearn".
export async function fit(pictures) {
  const short = (numbers) => numbers.map((number) => Number(number.toPrecision(5)));
  const rounded = pictures.map((picture) => ({
    ...picture,
    candidates: picture.candidates.map(({ scores, features }) => ({ scores: short(scores), features: features.map(short) })),
  }));
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ pictures: rounded }) };
  let response;
  try {
    response = await fetch(new URL("../api/fit", import.meta.url), { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw new DOMException(String(error), "Offline");
  }
  if (response.ok) return response.json();
  if (response.status >= 500) throw new DOMException(String(response.status), response.status === 503 ? "ServerBusy" : "Offline");
  const { error } = await response.json();
  throw new DOMException(error, "CannotLearn");
}
