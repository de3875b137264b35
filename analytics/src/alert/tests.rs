mod examples;
mod golden;
mod low_traffic;
mod months;
