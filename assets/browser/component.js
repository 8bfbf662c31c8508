// Imports a component's code from a URL that browsers cache: Streamlit would send it again with each run of the page.

export default function (component) {
  // The app may be served under a path: its own scripts reveal which.
  const home = document.querySelector('script[src*="static/"]').src.replace(/static\/.*$/, "");
  let unmount;
  let isUnmounted = false;
  import(`${home}browser/${component.data.module}`).then(
    ({ default: mount }) => isUnmounted || (unmount = mount(component)),
    () => {
      const status = component.parentElement.querySelector("[role=status]");
      status.textContent = "Part of this page failed to load. Reload it.";
    },
  );
  return () => {
    isUnmounted = true;
    unmount?.();
  };
}
