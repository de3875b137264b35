mod examples;
mod golden;
mod months;
