import { DurablyProvider } from "@coji/durably-react/spa";
import { Component, type ReactNode, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { durably } from "./durably";
import "./style.css";

/** Says why durably could not start: no room, a private window, a job file with a mistake. */
class Failures extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null as Error | null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    return this.state.error ? <p className="notice">{this.state.error.message}</p> : this.props.children;
  }
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Failures>
      <DurablyProvider durably={durably} fallback={<p className="notice quiet">Opening the database …</p>}>
        <App />
      </DurablyProvider>
    </Failures>
  </StrictMode>,
);
