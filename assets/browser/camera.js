// Open and release the visitor's camera, and take frames of it. Problems are keys of PROBLEMS in web/browser_camera.py.

const MAX_SIDE_PX = 640; // of the frames that are predicted

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

// Show the view of a component, which outlives its page: {root, appear, stop}. Returns what the component is to do when it
// is taken off the page: the view is stopped if it does not come back. A page that reconnects is rebuilt: the camera goes
// on meanwhile.
const RERENDER_TIMEOUT_MS = 500; // a component whose settings change is back within this
const RECONNECT_TIMEOUT_MS = 20_000; // one whose page has lost its connection, within this
export function mount(view, shell, settings) {
  if (shell !== view.root || !view.settings) {
    // The page was rebuilt, after a lost connection or on a later visit: what was there goes on.
    if (shell !== view.root) shell.replaceWith(view.root);
    view.appear(settings);
  }
  const { pathname } = location;
  return () => {
    const end = performance.now() + RECONNECT_TIMEOUT_MS;
    const timer = setInterval(() => {
      const isBack = view.root.isConnected;
      if (!isBack && location.pathname === pathname && performance.now() < end) return;
      clearInterval(timer);
      if (!isBack) view.stop();
    }, RERENDER_TIMEOUT_MS);
  };
}

// The size of a video or a bitmap, scaled down to the largest that is predicted.
export function sizeWithin(frame) {
  const width = frame.videoWidth ?? frame.width;
  const height = frame.videoHeight ?? frame.height;
  const scale = Math.min(1, MAX_SIDE_PX / Math.max(width, height));
  return [Math.round(scale * width), Math.round(scale * height)];
}

// The current frame of a video as a bitmap; undefined if there is none.
export async function grab(video) {
  const [resizeWidth, resizeHeight] = sizeWithin(video);
  const isSmaller = resizeWidth < video.videoWidth;
  return createImageBitmap(video, isSmaller ? { resizeWidth, resizeHeight } : {}).catch(() => undefined);
}
