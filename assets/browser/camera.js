// Open and release the visitor's camera. Problems are keys of PROBLEMS in web/browser_camera.py.

// The camera of that id, or the browser's default if there is no id or that camera is gone.
export async function openCamera(id) {
  if (!navigator.mediaDevices) throw new DOMException("", "NotSecure");
  const video = { width: { ideal: 640 }, height: { ideal: 480 }, ...(id && { deviceId: { exact: id } }) };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    if (!id || error.name !== "OverconstrainedError") throw error;
    return openCamera();
  }
}

export function releaseCamera(stream) {
  stream.getTracks().forEach((track) => track.stop());
}

// Fill a select with the cameras, and hide it if there is no choice.
export async function listCameras(select, stream) {
  const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  select.replaceChildren(...devices.map(({ deviceId, label }, i) => new Option(label || `Camera ${i + 1}`, deviceId)));
  select.value = stream.getVideoTracks()[0].getSettings().deviceId ?? "";
  select.hidden = devices.length < 2;
}

export function problemOf({ name }) {
  return {
    NotFoundError: "missing",
    OverconstrainedError: "missing",
    NotAllowedError: "refused",
    NotReadableError: "busy",
    AbortError: "busy",
    NotSecure: "insecure",
  }[name] ?? "unknown";
}

// The camera on the back of a phone is not mirrored: it shows what others see.
export function isRearCamera(stream) {
  return stream?.getVideoTracks()[0].getSettings().facingMode === "environment";
}

// Call `stop` once the component has left the page. A page that reconnects is rebuilt: the camera goes on meanwhile.
const RERENDER_TIMEOUT_MS = 500; // a component whose settings change is back within this
const RECONNECT_TIMEOUT_MS = 20_000; // one whose page has lost its connection, within this
export function stopWhenGone(element, stop) {
  const { pathname } = location;
  const stopIfDetached = () => element().isConnected || stop();
  setTimeout(() => location.pathname !== pathname && stopIfDetached(), RERENDER_TIMEOUT_MS);
  setTimeout(stopIfDetached, RECONNECT_TIMEOUT_MS);
}
