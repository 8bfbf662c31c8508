// The camera's code is fetched, once: sent with each run of the page, it would be most of what comes from the server.

export default function (component) {
  // The app may lie under a path of its host's: where its own scripts come from tells which.
  const home = document.querySelector('script[src*="static/"]').src.replace(/static\/.*$/, "");
  let hide;
  let gone = false;
  const status = component.parentElement.querySelector("[role=status]");
  import(`${home}browser/camera.js`).then(
    ({ default: show }) => gone || (hide = show(component)),
    () => (status.textContent = "A part of this page did not come. Reload it."),
  );
  return () => {
    gone = true;
    hide?.();
  };
}
